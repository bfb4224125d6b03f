"""llama.cpp reads a text as the tokens that the model was trained on, whatever is in the text."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.registry import export_as
from bitnet_train.gguf.pre_tokenizer import KNOWN, Step
from bitnet_train.quant.scheme import WeightScheme
from scripts.llama_cpp.libllama import LlamaCpp

SMOLLM2 = Path(os.environ.get("BITNET_TEST_SMOLLM2", ""))
NO_MARKS = ("tekken", "gpt-4o")
ROOT = Path(__file__).parents[2]
TEXTS = {
    "code": (ROOT / "bitnet_train" / "formats" / "planes.py").read_text(encoding="utf-8")[:3000],
    "prose": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")[:3000],
    "numbers": "1 12 123 1234 12345 3.14159 -1e-10 0x1F 1,000,000 2026-11-22 ½ ² ٣٤ Ⅻ",
    "spaces": " a  b   c    d\t\te \n\n\nf \r\n g\u00a0h\u2003i \n  \n\t x   ",
    "accents": "Ångström naïve café Ẽ ﬁne straße İstanbul ǅ",
    "scripts": "日本語のテキスト 한국어 文字 עברית العربية Ελληνικά Кириллица",
    "marks": "हिन्दी ไทย தமிழ் cafe\u0301 ❤️‍🔥",
    "symbols": "→ ∑ ∞ € £ … — “quotes” ‘single’ «guillemets» ™ \u200b\u200d\ufeff",
    "emoji": "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "contractions": "I'm you'll HE'S they'VE don't O'Brien 'tis rock'n'roll it’s",
    "punctuation": "!!! ??? ... ,,, ((a)) [[b]] {{c}} <d/> #!/bin/sh a_b__c ---===>>> // /* */ $x @y %z &w",
    "cases": "camelCase PascalCase SCREAMING_CASE mixedUPPERlower XMLHttpRequest iPhone",
    "control": "bell\a null\x00 escape\x1b[0m delete\x7f form\f vertical\v",
    "one space": " ",
    "one letter": "x",
    "long word": "a" * 300 + " " + "ab" * 150,
}
CHAT = [
    {"role": "user", "content": "Add 12 and 345.\n"},
    {"role": "assistant", "content": " 357"},
    {"role": "user", "content": "Thanks, café 😀"},
]


@pytest.fixture
def export(make_packed, tmp_path) -> Callable[[PreTrainedTokenizerBase], Path]:
    """Return a function that exports the smallest model there is with a tokenizer."""

    def make(tokenizer: PreTrainedTokenizerBase) -> Path:
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        packed = make_packed(WeightScheme(granularity="row"), words=tokenizer, **sizes)
        export_as("gguf", packed, tmp_path / "out")
        return tmp_path / "out" / MODEL_NAME

    return make


def require_same(tokenizer: PreTrainedTokenizerBase, file: Path, texts: dict[str, str] = TEXTS) -> None:
    with LlamaCpp(file) as model:
        for name, text in texts.items():
            for added in (False, True):
                wanted = tokenizer(text, add_special_tokens=added, verbose=False).input_ids
                assert model.tokenize(text, add_special=added) == wanted, (name, added)


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, *, ignore_merges: bool) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer with this pre-tokenizer, trained on the texts here."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|start|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=3000, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS.values()] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", tokenizer.token_to_id("<|start|>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>")


def built(steps: tuple[Step, ...]) -> pre_tokenizers.PreTokenizer:
    """Build the pre-tokenizer that the known map describes."""
    parts: list[pre_tokenizers.PreTokenizer] = []
    for step in steps:
        if step[0] == "bytes":
            parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
        elif step[0] == "digits":
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        else:
            parts.append(pre_tokenizers.Split(Regex(step[1]), behavior="isolated"))
    if not any(step[0] == "bytes" for step in steps):
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(parts)


@pytest.mark.parametrize(("steps", "ignore_merges"), KNOWN, ids=KNOWN.values())
def test_every_known_pre_tokenizer_cuts_text_where_llama_cpp_does(export, steps, ignore_merges):
    tokenizer = trained(built(steps), ignore_merges=ignore_merges)
    texts = dict(TEXTS)
    if KNOWN[steps, ignore_merges] in NO_MARKS:
        del texts["marks"]
    require_same(tokenizer, export(tokenizer), texts)


@pytest.mark.parametrize("name", NO_MARKS)
def test_llama_cpp_itself_cuts_words_at_vowel_signs_for_two_pre_tokenizers(export, name):
    """Its patterns for them leave out the marks (category M) of the original; when that ends, NO_MARKS can go."""
    (steps, ignore_merges) = next(key for key, value in KNOWN.items() if value == name)
    tokenizer = trained(built(steps), ignore_merges=ignore_merges)
    with LlamaCpp(export(tokenizer)) as model:
        assert model.tokenize(TEXTS["marks"]) != tokenizer(TEXTS["marks"]).input_ids


def test_the_tokens_of_the_bundled_model_are_llama_cpps(export, tokenizer):
    file = export(tokenizer)
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    require_same(tokenizer, file, {**TEXTS, "chat": chat, "special": "<|im_start|>a<|im_end|> <|endoftext|>"})
    with LlamaCpp(file) as model:
        assert model.chat_template == tokenizer.chat_template
        assert model.ends(tokenizer.eos_token_id)
        ids = tokenizer(TEXTS["code"]).input_ids
        assert model.text(ids) == TEXTS["code"]


def test_llama_cpp_ends_a_text_at_every_token_at_which_the_original_does(make_packed, tokenizer, tmp_path):
    ends = (tokenizer.eos_token_id, 100, 200)  # two words that llama.cpp would not take for an end
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    for name, given in (("one", ()), ("three", ends)):
        packed = make_packed(WeightScheme(granularity="row"), ends=given, **sizes)
        export_as("gguf", packed, tmp_path / name)
        with LlamaCpp(tmp_path / name / MODEL_NAME) as model:
            assert [model.ends(end) for end in ends] == [True, bool(given), bool(given)]
            assert not model.ends(101)


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.skipif(not SMOLLM2.is_file(), reason="set BITNET_TEST_SMOLLM2 to a SmolLM2-135M .gguf file")
def test_the_tokens_of_smollm2_are_llama_cpps(export):
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2.parent, gguf_file=SMOLLM2.name)
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    stdlib = Path(os.__file__).read_text(encoding="utf-8")
    file = export(tokenizer)
    require_same(tokenizer, file, {**TEXTS, "chat": chat, "stdlib": stdlib})
    with LlamaCpp(file) as model:
        assert model.chat_template == tokenizer.chat_template
        assert model.ends(tokenizer.eos_token_id)


def sentencepiece_like() -> PreTrainedTokenizerBase:
    """Return what transformers makes of a SentencePiece model: every way to cut a token in two tokens is a merge."""
    trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False)
    learnt = Tokenizer(models.BPE())
    learnt.train_from_iterator([f"▁{word}" for name in ("code", "prose") for word in TEXTS[name].split()], trainer)
    special = ["<unk>", "<s>", "</s>"]
    pieces = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(learnt.get_vocab(), key=learnt.token_to_id),
    ]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    cuts = [(piece[:i], piece[i:]) for piece in pieces[len(special) + 256 :] for i in range(1, len(piece))]
    merges = [cut for cut in cuts if cut[0] in vocab and cut[1] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def test_a_sentencepiece_like_tokenizer_gives_llama_cpps_tokens(export):
    tokenizer = sentencepiece_like()
    require_same(tokenizer, export(tokenizer))
