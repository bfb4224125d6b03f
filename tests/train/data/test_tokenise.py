from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.examples import Conversation, Document, Example, Instruction
from bitnet_train.train.data.messages import Message
from bitnet_train.train.data.tokenise import tokenise_examples
from tests.fixtures.data_examples import DOCUMENTS, make_tokenizer

TEXTS: list[Example] = [Document(text) for text in DOCUMENTS]


@pytest.mark.parametrize("bos", [True, False])
def test_every_document_begins_with_bos_or_eos_and_is_there_token_by_token(bos: bool) -> None:
    tokenizer = make_tokenizer(bos=bos)
    rows, counts = tokenise_examples(TEXTS, tokenizer, 16, 2, "train")
    expected = [[0, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in DOCUMENTS]
    rebuilt: list[list[int]] = []
    for ids, length in zip(rows.input_ids.tolist(), rows.lengths, strict=True):
        if ids[0] == 0:
            rebuilt.append(ids[:length])
        else:
            assert ids[0] == rebuilt[-1][-1]
            rebuilt[-1] += ids[1:length]
    assert rebuilt == expected
    assert counts.trained_tokens == sum(len(ids) - 1 for ids in expected)
    assert (counts.documents, counts.rows, counts.dropped_tokens) == (len(TEXTS), len(rows), 0)


def test_short_windows_are_dropped_and_their_tokens_counted() -> None:
    tokenizer = make_tokenizer()
    everything = tokenise_examples(TEXTS, tokenizer, 16, 2, "train")[1]
    kept = tokenise_examples(TEXTS, tokenizer, 16, 16, "train")[1]
    assert kept.padding_share == 0.0 < everything.padding_share
    assert kept.dropped_tokens == everything.trained_tokens - kept.trained_tokens > 0


def test_a_document_shorter_than_the_minimum_is_dropped_whole() -> None:
    tokenizer = make_tokenizer()
    short = len(tokenizer("short", add_special_tokens=False)["input_ids"]) + 1
    counts = tokenise_examples([*TEXTS, Document("short")], tokenizer, 16, 16, "train")[1]
    assert counts.dropped_tokens == tokenise_examples(TEXTS, tokenizer, 16, 16, "train")[1].dropped_tokens + short


def test_the_padding_share_is_that_of_whole_rows() -> None:
    rows, counts = tokenise_examples(TEXTS, make_tokenizer(), 32, 2, "train")
    assert counts.padding_share == pytest.approx(1 - counts.tokens / (32 * len(rows)), abs=1e-6)


@pytest.mark.parametrize("template", [None, "given"])
def test_answers_longer_than_the_context_are_dropped_and_counted(template: str | None) -> None:
    tokenizer = make_tokenizer() if template else make_tokenizer(None)
    examples: list[Example] = [Instruction("q", "a"), Instruction("q", "long " * 100), Instruction("q", "b")]
    rows, counts = tokenise_examples(examples, tokenizer, 64, 16, "train")
    assert (counts.documents, counts.rows, counts.dropped_rows, len(rows)) == (3, 2, 1, 2)
    assert 0 < counts.trained_tokens < counts.tokens


def test_a_chat_row_is_trained_on_its_answer_only() -> None:
    tokenizer = make_tokenizer()
    chat = Conversation((Message("user", "what", False), Message("assistant", "that", True)))
    rows, _ = tokenise_examples([chat], tokenizer, 64, 2, "train")
    assert tokenizer.decode(rows.input_ids[0][rows.trained[0]].tolist()) == "that<|im_end|>"


def test_dropping_every_row_is_an_error_that_names_both_limits() -> None:
    with pytest.raises(DataError, match=r"train split has 1 example.*1 longer than `data\.context_tokens=16`"):
        tokenise_examples([Instruction("q", "long " * 100)], make_tokenizer(), 16, 2, "train")
    with pytest.raises(DataError, match=r"shorter than `data\.min_tokens=16`"):
        tokenise_examples([Document("a")], make_tokenizer(), 16, 16, "train")


def test_no_examples_make_no_rows() -> None:
    rows, counts = tokenise_examples([], make_tokenizer(), 16, 2, "validation")
    assert (len(rows), rows.input_ids.shape, counts.rows, counts.padding_share) == (0, (0, 16), 0, 0.0)
