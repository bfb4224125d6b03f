"""Tokenizers in the file: tokens, kinds, merges or scores, what is put around a text, and refusals for what differs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.pre_tokenizer import pre_tokenizer_name
from bitnet_train.exporters.gguf.tokenizer import read_vocabulary
from bitnet_train.exporters.gguf.vocabulary import TokenKind
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.gguf.pre_tokenizer import KNOWN, apply_pre_tokenizer
from bitnet_train.importers.load import tiny_folder
from bitnet_train.packed.end_tokens import end_tokens

TEXT = ["the theme of these three thieves", "1234 and 12", "a  b   c"]
LINE = "\u2581"


def trained(pre_tokenizer, **options):
    """The tokenizer.json of a small byte-level BPE."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet))
    return json.loads(tokenizer.to_str())


def byte_level():
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False))


def sentencepiece(**changes):
    """A tokenizer.json like Llama 2's: every way to make a token is a merge, in order of the tokens."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        LINE,
        "a",
        "b",
        "ab",
        f"{LINE}a",
        f"{LINE}ab",
    ]
    merges = [["a", "b"], [LINE, "a"], [f"{LINE}a", "b"], [LINE, "ab"]]
    special = [added(i, pieces[i], special=True) for i in range(3)]
    normalizers = [
        {"type": "Prepend", "prepend": LINE},
        {"type": "Replace", "pattern": {"String": " "}, "content": LINE},
    ]
    tokenizer = {
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": frame(["<s>"], []),
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": merges,
        },
    }
    return {**tokenizer, **changes}


def added(number, content, *, special=False, **more):
    return {"id": number, "content": content, "special": special, "lstrip": False, "rstrip": False, **more}


def frame(before, after):
    tokens = {name: [{"SpecialToken": {"id": token, "type_id": 0}} for token in row] for name, row in
              (("before", before), ("after", after))}  # fmt: skip
    single = [*tokens["before"], {"Sequence": {"id": "A", "type_id": 0}}, *tokens["after"]]
    return {"type": "TemplateProcessing", "single": single}


def read(tmp_path, tokenizer, vocab_size=None, config=None, files=None, **options):
    """Put `tokenizer` and other files into a folder and read its vocabulary."""
    for name, content in {"tokenizer.json": tokenizer, **(files or {})}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def companion(name):
        return tmp_path / name if (tmp_path / name).is_file() else None

    ends = end_tokens((files or {}).get("generation_config.json", {}), config or {})
    source = SimpleNamespace(companion=companion, config=config or {}, end_tokens=ends)
    size = vocab_size or len(tokenizer["model"]["vocab"])
    return read_vocabulary(source, size, ExportOptions(**options))


def test_the_bundled_tokenizer_has_a_known_name():
    assert pre_tokenizer_name(json.loads((tiny_folder() / "tokenizer.json").read_text())) == "gpt-2"


def test_the_steps_of_smollm2_have_its_name():
    sequence = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    assert pre_tokenizer_name(trained(pre_tokenizers.Sequence(sequence))) == "smollm"


@pytest.mark.parametrize(("key", "name"), KNOWN.items(), ids=KNOWN.values())
def test_every_known_pre_tokenizer_is_found_as_the_tokenizers_library_writes_it(key, name):
    tokenizer = Tokenizer.from_str(json.dumps(byte_level()))
    assert apply_pre_tokenizer(tokenizer, name)
    written = json.loads(tokenizer.to_str())
    assert pre_tokenizer_name(written) == name
    assert written["model"]["ignore_merges"] == key[1]


def test_digits_stand_alone_under_smollms_name_and_not_under_gpt_2s():
    tokenizer = Tokenizer.from_str(json.dumps(byte_level()))
    cuts = {}
    for name in ("gpt-2", "smollm"):
        apply_pre_tokenizer(tokenizer, name)
        cuts[name] = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a   12")]
    assert cuts == {"gpt-2": ["a", "ĠĠ", "Ġ12"], "smollm": ["a", "ĠĠĠ", "1", "2"]}


def test_an_unknown_name_changes_nothing():
    tokenizer = Tokenizer.from_str(json.dumps(byte_level()))
    before = tokenizer.to_str()
    assert not apply_pre_tokenizer(tokenizer, "viking")
    assert tokenizer.to_str() == before


def test_qwens_own_class_has_its_name():
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab={"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}, merges=[("a", "b")])
    assert pre_tokenizer_name(json.loads(tokenizer.backend_tokenizer.to_str())) == "qwen2"


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}{1,2}"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
        ),
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    ],
)
def test_an_unknown_pre_tokenizer_is_refused_until_it_is_named(tmp_path, pre_tokenizer):
    tokenizer = trained(pre_tokenizer)
    with pytest.raises(FormatError, match=r"none of those known here: gpt-2, smollm.*export.pre_tokenizer=NAME"):
        read(tmp_path, tokenizer)
    assert read(tmp_path, tokenizer, pre_tokenizer="mpt").pre == "mpt"


def test_ignoring_merges_is_part_of_a_name(tmp_path):
    tokenizer = byte_level()
    tokenizer["model"]["ignore_merges"] = True
    with pytest.raises(FormatError, match="ignore_merges True"):
        read(tmp_path, tokenizer)


@pytest.mark.parametrize("as_words", [False, True])
def test_tokens_kinds_and_merges_of_a_byte_level_tokenizer(tmp_path, as_words):
    tokenizer = byte_level()
    size = len(tokenizer["model"]["vocab"])
    tokenizer["added_tokens"] = [added(size, "<|end|>", special=True), added(size + 1, f"{LINE}tool")]
    merges = [" ".join(merge) for merge in tokenizer["model"]["merges"]]
    if as_words:
        tokenizer["model"]["merges"] = merges
    found = read(tmp_path, tokenizer, size + 4)
    assert found.model == "gpt2"
    assert found.tokens[-4:] == ["<|end|>", " tool", f"[PAD{size + 2}]", f"[PAD{size + 3}]"]
    assert found.kinds[-4:] == [TokenKind.CONTROL, TokenKind.USER_DEFINED, TokenKind.UNUSED, TokenKind.UNUSED]
    assert set(found.kinds[:size]) == {TokenKind.NORMAL}
    assert found.merges == merges
    assert found.scores == []


def test_more_tokens_than_rows_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"has a token 279, but the embedding has 100 rows"):
        read(tmp_path, byte_level(), 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "changes text first .Lowercase."),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "is a WordPiece model"),
        ({"post_processor": {"type": "BertProcessing"}}, "frames a text with BertProcessing"),
        ({"post_processor": frame(["a", "b"], [])}, r"puts \['a', 'b'\] before a text"),
    ],
)
def test_what_llama_cpp_does_not_do_is_refused(tmp_path, change, message):
    with pytest.raises(FormatError, match=message):
        read(tmp_path, {**byte_level(), **change})


def test_a_tokenizer_without_merges_is_refused(tmp_path):
    tokenizer = byte_level()
    tokenizer["model"]["merges"] = []
    with pytest.raises(FormatError, match="no merges"):
        read(tmp_path, tokenizer)


def test_composing_characters_is_noted(tmp_path):
    assert "NFC" in read(tmp_path, {**byte_level(), "normalizer": {"type": "NFC"}}).notes[0]


def test_added_tokens_that_take_spaces_are_noted(tmp_path):
    tokenizer = byte_level()
    tokenizer["added_tokens"] = [added(280, "<mask>", special=True, lstrip=True)]
    assert "'<mask>'" in read(tmp_path, tokenizer, 281).notes[0]


def test_special_tokens_come_from_the_settings_the_frame_and_the_config(tmp_path):
    tokenizer = byte_level()
    tokenizer["added_tokens"] = [added(280 + i, f"<{i}>", special=True) for i in range(5)]
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, frame(["<0>"], [])]}
    files = {
        "tokenizer_config.json": {"eos_token": {"content": "<1>"}, "pad_token": "<2>", "unk_token": None},
        "generation_config.json": {"eos_token_id": [281, 283]},
        "chat_template.jinja": "{{ messages }}",
    }
    special = read(tmp_path, tokenizer, 285, {"unk_token_id": 3}, files).special
    assert special.ids == {"bos": 280, "eos": 281, "unk": 3, "pad": 282, "eot": 283}
    assert (special.add_bos, special.add_eos) == (True, False)
    assert special.chat_template == "{{ messages }}"


def test_every_token_that_ends_a_text_has_a_key_those_of_the_chat_template_first(tmp_path):
    tokenizer = byte_level()
    tokenizer["added_tokens"] = [added(280 + i, name, special=True) for i, name in enumerate(["<0>", "<1>", "<2>"])]
    files = {
        "tokenizer_config.json": {"eos_token": "<0>"},
        "generation_config.json": {"eos_token_id": [281, 280, 282]},
        "chat_template.jinja": "{{ messages }}<2>",
    }
    special = read(tmp_path, tokenizer, 285, {}, files).special
    assert special.ids == {"eos": 280, "eot": 282, "eom": 281}
    assert special.lost_ends == ()


def test_a_model_whose_tokenizer_names_no_end_has_that_of_its_generation_settings(tmp_path):
    files = {"tokenizer_config.json": {}, "generation_config.json": {"eos_token_id": [5, 6]}}
    assert read(tmp_path, byte_level(), 285, {}, files).special.ids == {"eos": 5, "eot": 6}
    files = {"tokenizer_config.json": {}}
    assert read(tmp_path, byte_level(), 285, {"eos_token_id": [5, 6]}, files).special.ids == {"eos": 5, "eot": 6}


def test_an_end_that_llama_cpp_has_no_key_for_is_named_unless_it_knows_it(tmp_path):
    tokenizer = byte_level()
    names = ["<0>", "<|im_end|>", "<1>", "<2>", "<3>"]
    tokenizer["added_tokens"] = [added(280 + i, name, special=True) for i, name in enumerate(names)]
    files = {
        "tokenizer_config.json": {"eos_token": "<0>"},
        "generation_config.json": {"eos_token_id": [280, 281, 282, 283, 284]},
    }
    special = read(tmp_path, tokenizer, 285, {}, files).special
    assert special.ids == {"eos": 280, "eot": 282, "eom": 283}
    assert special.lost_ends == ("<3>",)


def test_a_token_put_after_a_text_is_its_end(tmp_path):
    tokenizer = byte_level()
    tokenizer["added_tokens"] = [added(280, "<end>", special=True)]
    tokenizer["post_processor"] = frame([], ["<end>"])
    special = read(tmp_path, tokenizer, 281, {"eos_token_id": 5}).special
    assert special.ids["eos"] == 280
    assert (special.add_bos, special.add_eos) == (False, True)


def test_a_sentencepiece_tokenizer_has_scores_in_the_order_of_its_merges(tmp_path):
    found = read(tmp_path, sentencepiece())
    assert (found.model, found.pre, found.space_before_text) == ("llama", "default", True)
    kinds = dict(zip(found.tokens, found.kinds, strict=True))
    assert (kinds["<unk>"], kinds["<s>"]) == (TokenKind.UNKNOWN, TokenKind.CONTROL)
    assert (kinds["<0x0A>"], kinds["ab"]) == (TokenKind.BYTE, TokenKind.NORMAL)
    scores = dict(zip(found.tokens, found.scores, strict=True))
    assert scores["ab"] > scores[f"{LINE}a"] > scores[f"{LINE}ab"]
    assert found.merges == []
    assert found.special.add_bos


def test_gemmas_form_puts_no_space_before_a_text(tmp_path):
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": LINE}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
    assert read(tmp_path, sentencepiece(normalizer=replace, pre_tokenizer=split)).space_before_text is False


def test_metaspace_is_a_space_before_a_text_with_a_note(tmp_path):
    metaspace = {"type": "Metaspace", "replacement": LINE, "prepend_scheme": "first", "split": False}
    found = read(tmp_path, sentencepiece(normalizer=None, pre_tokenizer=metaspace))
    assert found.space_before_text is True
    assert "special token" in found.notes[0]


def test_runs_of_one_character_may_have_alternating_merges(tmp_path):
    tokenizer = sentencepiece()
    vocab = tokenizer["model"]["vocab"]
    for run in (2, 3):
        vocab[LINE * run] = len(vocab)
    one, two = LINE, LINE * 2
    tokenizer["model"]["merges"] += [[two, one], [one, one], [one, two]]
    assert read(tmp_path, tokenizer).notes == []


@pytest.mark.parametrize(
    ("merges", "difference"),
    [
        ([["a", "b"], [LINE, "a"], [f"{LINE}a", "b"]], "is no merge"),
        ([["a", "b"], [f"{LINE}a", "b"], [LINE, "a"], [LINE, "ab"]], "do not follow each other"),
    ],
)
def test_merges_that_scores_cannot_follow_are_refused_until_accepted(tmp_path, merges, difference):
    tokenizer = sentencepiece()
    tokenizer["model"]["merges"] = merges
    with pytest.raises(FormatError, match=rf"{difference}.*export.pre_tokenizer=default"):
        read(tmp_path, tokenizer)
    assert difference in read(tmp_path, tokenizer, pre_tokenizer="default").notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFKC"}}, "a step NFKC"),
        ({"normalizer": None}, "does not write a space as a low line"),
        ({"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, "a step Digits"),
    ],
)
def test_steps_that_sentencepiece_does_not_have_are_refused(tmp_path, changes, message):
    with pytest.raises(FormatError, match=message):
        read(tmp_path, sentencepiece(**changes))


def test_metaspace_that_splits_is_refused_where_a_token_has_a_space_inside(tmp_path):
    metaspace = {"type": "Metaspace", "replacement": LINE, "prepend_scheme": "always", "split": True}
    tokenizer = sentencepiece(normalizer=None, pre_tokenizer=metaspace)
    assert read(tmp_path, tokenizer).space_before_text is True
    vocab, inner = tokenizer["model"]["vocab"], f"b{LINE}"
    vocab[inner] = len(vocab)
    tokenizer["model"]["merges"].append(["b", LINE])
    with pytest.raises(FormatError, match="Metaspace with `split`"):
        read(tmp_path, tokenizer)


def test_bpe_without_bytes_for_unknown_characters_is_refused(tmp_path):
    tokenizer = sentencepiece()
    tokenizer["model"]["byte_fallback"] = False
    with pytest.raises(FormatError, match="byte_fallback"):
        read(tmp_path, tokenizer)
