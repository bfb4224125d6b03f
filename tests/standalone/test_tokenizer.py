"""Texts become the token ids that Hugging Face's `tokenizers` gives, and back; what is not read exactly is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bitnet_train.importers.load import load_pretrained

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WORDS = {
    "gpt2": BYTE_LEVEL,
    "each digit": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]},
    "digits": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": False}, BYTE_LEVEL]},
    "llama3": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
            BYTE_LEVEL | {"use_regex": False},
        ],
    },
}
TEXTS = [
    "",
    " ",
    "Once upon a time, there was a little girl who didn't  like 1234 apples.\n\n\tShe'LL say\r\n so. ",
    "Ünïcode ½ ² ٣٤ 日本語 é 🙂👍🏽 a\u00a0b\u3000c\u2028d \x85 \ufeff",
    "<|im_start|>user\n hello<|im_end|><|endoftext|><|endof",
    "a" * 3000,
]


def drawn(seed: int) -> str:
    """A text of characters of many scripts, also such as no font has."""
    rng = random.Random(seed)
    ranges = [
        (9, 14),
        (32, 127),
        (0xA0, 0x2FF),
        (0x300, 0x3000),
        (0x3000, 0xD7FF),
        (0xE000, 0x10000),
        (0x10000, 0x1F700),
    ]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 60)))


@pytest.fixture
def with_tokenizer(bundled, tmp_path, load):
    """Load the bundled model beside another tokenizer.json, made of its own."""

    def make(change):
        folder = shutil.copytree(bundled, tmp_path / "folder", dirs_exist_ok=True)
        body = json.loads((bundled / "tokenizer.json").read_text())
        change(body)
        (folder / "tokenizer.json").write_text(json.dumps(body))
        return load(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))

    return make


def require_equal(ours, theirs, texts):
    for text in texts:
        ids = theirs.encode(text).ids
        assert ours.tokenize(text) == ids, text
        assert b"".join(map(ours.piece, ids)).decode(errors="replace") == theirs.decode(ids), text


@pytest.mark.parametrize("words", WORDS)
def test_ids_are_those_of_hugging_face(with_tokenizer, words):
    ours, theirs = with_tokenizer(lambda body: body.update(pre_tokenizer=WORDS[words]))
    require_equal(ours, theirs, [*TEXTS, *map(drawn, range(300))])


def test_what_a_model_expects_around_a_text_is_added(with_tokenizer):
    def change(body):
        special = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
        single = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
        body["post_processor"] = {"type": "Sequence", "processors": [BYTE_LEVEL, template]}

    ours, theirs = with_tokenizer(change)
    assert ours.tokenize("Hello")[0] == 1
    require_equal(ours, theirs, TEXTS)


def test_bytes_of_any_tokens_are_those_of_hugging_face(with_tokenizer):
    ours, theirs = with_tokenizer(lambda body: None)
    rng = random.Random(2)
    for _ in range(50):
        ids = [rng.randrange(theirs.get_vocab_size()) for _ in range(20)]
        assert b"".join(map(ours.piece, ids)).decode(errors="replace") == theirs.decode(ids)
    with pytest.raises(RuntimeError, match="token 4096 is not in the tokenizer"):
        ours.piece(theirs.get_vocab_size())


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("normalizer", {"type": "NFC"}, "the normalizer 'NFC'"),
        ("decoder", {"type": "Metaspace"}, "a decoder that is not byte-level"),
        ("pre_tokenizer", {"type": "Metaspace"}, "the pre-tokenizer 'Metaspace'"),
        ("pre_tokenizer", BYTE_LEVEL | {"add_prefix_space": True}, "'ByteLevel' with its settings"),
        ("pre_tokenizer", None, "the pre-tokenizer ''"),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]]}, "the model 'Unigram'"),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}, "a merge makes 'aa', which is no token"),
        ("post_processor", {"type": "BertProcessing"}, "the post-processor 'BertProcessing'"),
    ],
)
def test_a_tokenizer_that_is_not_read_exactly_is_refused_and_ids_go_on(bundled, tmp_path, load, field, value, told):
    folder = shutil.copytree(bundled, tmp_path / "folder")
    body = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(body | {field: value}))
    ours = load(folder)
    assert ours.info.has_tokenizer == 0
    with pytest.raises(RuntimeError, match=told):
        ours.tokenize("Hello")
    assert len(ours.generate([5, 6], 3)) == 3


def test_a_text_that_is_no_utf8_is_refused(bundled, load):
    ours = load(bundled)
    for text in (b"ab\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        assert ours.c.bitnet_tokenize(ours.model, text, None, 0) == -1
        assert b"no UTF-8 from byte" in ours.c.bitnet_last_error()


@pytest.mark.real_model
@pytest.mark.skipif("BITNET_TEST_SMOLLM2" not in os.environ, reason="needs the file that `BITNET_TEST_SMOLLM2` names")
def test_the_tokenizer_of_a_published_model_gives_the_same_ids(bundled, tmp_path, load):
    folder = shutil.copytree(bundled, tmp_path / "folder")
    load_pretrained(os.environ["BITNET_TEST_SMOLLM2"]).tokenizer.save_pretrained(str(folder))
    texts = [path.read_text() for path in sorted((Path(__file__).parents[2] / "docs").glob("*.md"))]
    require_equal(
        load(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), [*texts, *TEXTS, *map(drawn, range(300))]
    )
