from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitnet_train.train.data.chunk import IGNORED, TokenRows, collate, stack_rows, windows
from tests.fixtures.data_examples import make_llama


def rows_of(documents: list[np.ndarray], context_tokens: int, min_tokens: int = 2, pad_id: int = 0) -> TokenRows:
    parts = [part for document in documents for part in windows(document, context_tokens, min_tokens)]
    return stack_rows(parts, [np.ones(len(part), dtype=bool) for part in parts], context_tokens, pad_id)


def test_windows_overlap_by_one_token() -> None:
    assert [part.tolist() for part in windows(np.arange(9), 4, 2)] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]]


@given(num_tokens=st.integers(0, 70), context_tokens=st.integers(2, 20))
def test_every_token_but_the_first_is_predicted_exactly_once(num_tokens: int, context_tokens: int) -> None:
    predicted = [int(token) for part in windows(np.arange(num_tokens), context_tokens, 2) for token in part[1:]]
    assert predicted == list(range(1, num_tokens))


@given(num_tokens=st.integers(0, 70), context_tokens=st.integers(2, 20), min_tokens=st.integers(2, 20))
def test_no_window_is_longer_than_the_context_or_shorter_than_the_minimum(
    num_tokens: int, context_tokens: int, min_tokens: int
) -> None:
    lengths = [len(part) for part in windows(np.arange(num_tokens), context_tokens, min_tokens)]
    assert all(min(min_tokens, context_tokens) <= length <= context_tokens for length in lengths)


def test_no_row_mixes_documents() -> None:
    documents = [np.full(length, number) for number, length in enumerate([5, 9, 2, 14], start=1)]
    rows = rows_of(documents, context_tokens=6)
    for ids, length in zip(rows.input_ids, rows.lengths, strict=True):
        assert len(set(ids[:length].tolist())) == 1


def test_padding_has_no_attention_and_no_label_and_stands_on_the_right() -> None:
    batch = collate(rows_of([np.arange(10, 15)], context_tokens=8, pad_id=7))
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13, 14, 7, 7, 7]]
    assert batch["labels"].tolist() == [[IGNORED, 11, 12, 13, 14, IGNORED, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_trained_tokens_are_the_labels() -> None:
    flags = [np.array([True, False, True]), np.array([False, True])]
    rows = stack_rows([np.array([5, 6, 7]), np.array([8, 9])], flags, 4, 0)
    labels = collate(rows)["labels"]
    assert labels.tolist() == [[IGNORED, IGNORED, 7, IGNORED], [IGNORED, 9, IGNORED, IGNORED]]
    assert int(rows.trained.sum()) == int((labels != IGNORED).sum())


@pytest.mark.parametrize(("lengths", "columns"), [([3, 5], 32), ([33, 2], 64), ([70, 1], 80), ([80], 80)])
def test_cropping_cuts_whole_columns_of_padding_to_a_multiple_of_32(lengths: list[int], columns: int) -> None:
    parts = [np.arange(1, length + 1) for length in lengths]
    rows = stack_rows(parts, [np.ones(len(part), dtype=bool) for part in parts], 80, 0)
    whole, cropped = collate(rows), collate(rows, crop=True)
    for name, tensor in cropped.items():
        assert tensor.shape == (len(lengths), columns)
        assert torch.equal(tensor, whole[name][:, :columns])
    assert int(cropped["attention_mask"].sum()) == sum(lengths)


def test_rows_can_be_selected_in_any_order() -> None:
    rows = rows_of([np.arange(1, 4), np.arange(4, 9)], context_tokens=8)
    picked = rows.select([1, 0, 1])
    assert picked.lengths.tolist() == [5, 3, 5]
    assert picked.input_ids[1].tolist() == rows.input_ids[0].tolist()
    assert picked.trained.shape == (3, 8)


@torch.no_grad()
def test_the_logits_of_a_document_do_not_depend_on_its_neighbours_or_on_padding() -> None:
    """On a real Llama, bit for bit: other rows of the batch and the ids of the padding have no influence."""
    model = make_llama()
    document = np.random.default_rng(0).integers(1, 400, 20)
    others = [np.random.default_rng(seed).integers(1, 400, 31) for seed in (1, 2)]

    def logits_of(other: np.ndarray, pad_id: int) -> torch.Tensor:
        batch = collate(rows_of([document, other], context_tokens=32, pad_id=pad_id))
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return model(**inputs, use_cache=False).logits[0, : len(document)]

    reference = logits_of(others[0], pad_id=0)
    assert torch.equal(reference, logits_of(others[1], pad_id=0))
    assert torch.equal(reference, logits_of(others[0], pad_id=399))


@torch.no_grad()
def test_the_logits_of_a_padded_row_are_those_of_the_document_alone() -> None:
    model = make_llama()
    document = np.random.default_rng(0).integers(1, 400, 20)
    batch = collate(rows_of([document], context_tokens=64))
    padded = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits[0, :20]
    alone = model(input_ids=torch.from_numpy(document)[None], use_cache=False).logits[0]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


def test_pieces_hold_the_tokens_of_their_rows_and_train_all_but_the_first() -> None:
    rows = stack_rows([np.arange(1, 9), np.arange(11, 14)], [np.ones(8, dtype=bool), np.ones(3, dtype=bool)], 8, 0)
    pieces, counts = rows.in_pieces(4)
    assert pieces.input_ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [11, 12, 13, 0]]
    assert pieces.trained.tolist() == [[False, True, True, True], [False, True, True, True], [False, True, True, False]]
    assert pieces.lengths.tolist() == [4, 4, 3]
    assert counts.tolist() == [2, 1]


def test_pieces_without_a_trained_token_are_left_out() -> None:
    answer = np.array([False] * 4 + [True, False, False, False])  # trained, but the first of its piece
    rows = stack_rows([np.arange(8), np.arange(8)], [answer, np.arange(8) > 5], 8, 0)
    pieces, counts = rows.in_pieces(4)
    assert counts.tolist() == [0, 1]
    assert pieces.input_ids.tolist() == [[4, 5, 6, 7]]
