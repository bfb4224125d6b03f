"""Several documents in one row, none of which sees another.

Short rows waste most of a batch on padding: chats and short texts fill a third of theirs. Packed, a row holds as many
whole documents as fit, and positions begin anew with each (`TokenRows.starts`). A model of transformers that is given
such positions, no attention mask and no cache keeps attention within a document (its `find_packed_sequence_indices`),
to 1e-7 in the logits; with a mask, or with its own positions, documents leak into each other by half a logit. Not every
architecture does it: models with state-space or convolution layers, or without positions, do not. So it is measured on
the model at hand before anything is packed (`keeps_documents_apart`), and no list of names is kept.

Documents are laid out longest first, each in the fullest row that it still fits (best-fit decreasing, as TRL's `bfd`):
a function of the lengths alone, so a resumed run has the same rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitnet_train.errors import DataError
from bitnet_train.train.data.chunk import TokenRows

WORTH_IT = 0.9  # pack where the rows become fewer than this share of what they were
_CLEAR = 20  # a leak is this many times larger than what is taken for rounding
_PROBE_TOKENS = (13, 21)


@dataclass(frozen=True)
class PackedRows:
    """Rows of several documents, and the numbers of the documents in each, in their order."""

    rows: TokenRows
    documents: list[list[int]]


@dataclass(frozen=True)
class Layout:
    """What was made of the rows of one document each, as facts; `why_not` says why they stay as they are."""

    documents: int
    rows: int
    padding_share: float  # of whole rows, as trained on
    padding_share_alone: float  # with a row for each document
    why_not: str | None = None


def pack_where_it_helps(rows: TokenRows, wanted: str, model: Any | None) -> tuple[PackedRows | None, Layout]:
    """Return the packed rows, None where they stay as they are, and the layout in figures.

    wanted: auto = where rows become fewer and `model` keeps documents apart, always, never. Raises DataError where
    always is wanted of a model that does not.
    """
    alone = rows.padding_share
    stays = Layout(len(rows), len(rows), alone, alone)
    if wanted == "never" or len(rows) == 0:
        return None, replace(stays, why_not="`data.packing=never`")
    packed = pack(rows)
    if wanted == "auto" and len(packed.rows) > WORTH_IT * len(rows):
        return None, replace(stays, why_not="documents do not fit together")
    if model is None and wanted == "auto":
        return None, replace(stays, why_not="there is no model to try it on")
    if model is not None and not keeps_documents_apart(model):
        if wanted == "always":
            raise DataError(mixes_documents("data.packing=always", model))
        return None, replace(stays, why_not=f"{type(model).__name__} would mix the documents of a row")
    return packed, Layout(len(rows), len(packed.rows), packed.rows.padding_share, alone)


def mixes_documents(setting: str, model: Any) -> str:
    """Return what to say of a model that cannot be trained, or teach, on packed rows."""
    return (
        f"`{setting}`: {type(model).__name__} lets the documents of a packed row see each other, tried on two of them. "
        "Set `data.packing=never`."
    )


def pack(rows: TokenRows) -> PackedRows:
    """Lay rows of one document each out in as few rows as best-fit decreasing finds."""
    num_columns = rows.input_ids.shape[1]
    layout = best_fit(rows.lengths.tolist(), num_columns)
    shape = (len(layout), num_columns)
    input_ids, trained, starts = (
        rows.input_ids[[row[0] for row in layout]],
        np.zeros(shape, bool),
        np.zeros(shape, bool),
    )
    lengths = np.zeros(len(layout), np.int32)
    for number, documents in enumerate(layout):
        for document in documents:
            length, begin = rows.lengths[document], lengths[number]
            input_ids[number, begin : begin + length] = rows.input_ids[document, :length]
            trained[number, begin : begin + length] = rows.trained[document, :length]
            starts[number, begin] = True
            lengths[number] += length
    return PackedRows(TokenRows(input_ids, trained, lengths, starts), layout)


def best_fit(lengths: Sequence[int], space: int) -> list[list[int]]:
    """Return rows of document numbers whose lengths, at most `space` each, add up to `space` or less."""
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # by the space left
    spaces: list[int] = []  # the keys of `open_rows`, sorted
    for document in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = bisect_left(spaces, lengths[document])
        if place == len(spaces):
            rows.append([])
            row, left = len(rows) - 1, space
        else:
            left = spaces[place]
            row = open_rows[left].pop()
            if not open_rows[left]:
                del open_rows[left], spaces[place]
        rows[row].append(document)
        left -= lengths[document]
        if left not in open_rows:
            insort(spaces, left)
        open_rows.setdefault(left, []).append(row)
    return rows


def document_numbers(position_ids_BL: Tensor) -> Tensor:
    """Return int64 [B,L]: tokens of one number belong together; padding counts as a document of its own."""
    return (position_ids_BL == 0).cumsum(-1)


@torch.no_grad()
def keeps_documents_apart(model: nn.Module) -> bool:
    """Tell whether two documents packed into one row give the logits that each gives alone.

    A model that does not take positions, or fails on them, counts as one that does not.
    """
    first, second = _probe(model)
    was_training = model.training
    model.eval()
    try:
        alone = torch.cat([_logits(model, first), _logits(model, second)], dim=1)
        row = torch.cat([first, second], dim=1)
        positions = torch.cat([torch.arange(part.shape[1]) for part in (first, second)])[None].to(row.device)
        packed, leaky = _logits(model, row, position_ids=positions), _logits(model, row)
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    finally:
        model.train(was_training)
    leak, gap = ((logits - alone)[:, first.shape[1] :].abs().max() for logits in (leaky, packed))
    rounding = (packed - alone)[:, : first.shape[1]].abs().max()
    noise = 64 * torch.finfo(alone.dtype).eps * alone.abs().max()  # of sums taken in another order
    return bool(torch.maximum(gap, rounding) <= torch.maximum(leak / _CLEAR, noise))


def _probe(model: Any) -> list[Tensor]:
    """Return two documents of tokens spread over the vocabulary, int64 [1,L]."""
    embedding = model.get_input_embeddings()
    numbers = torch.arange(1, 1 + sum(_PROBE_TOKENS)) * 7919 % embedding.num_embeddings
    return list(numbers[None].to(embedding.weight.device).split(_PROBE_TOKENS, dim=1))


def _logits(model: Any, input_ids: Tensor, **positions: Tensor) -> Tensor:
    return model(input_ids=input_ids, use_cache=False, **positions).logits
