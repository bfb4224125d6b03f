"""Cut token sequences into rows of one length, no row mixing two documents.

A document of n tokens (its leading BOS included) becomes windows that start every L-1 tokens, L = `context_tokens`:

    tokens    0 1 2 3 4 5 6 7 8            L = 4
    row 0     0 1 2 3
    row 1           3 4 5 6                the overlap of one token gives token 4 its context, so every
    row 2                 6 7 8 .          token but the first is predicted exactly once; . is padding

Leakage between documents is impossible by construction: a row holds one document, padding stands on the right
(causal attention never sees it), has attention_mask 0 and label -100. Combining short documents in one row would
need position ids and block-diagonal attention through every model's own attention code; instead `collate` cuts the
columns that are padding in the whole batch.

The first token of a row has no context, so its label is -100 too, and `trained.sum()` counts predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # Hugging Face's label for "not trained"
_COLUMN_STEP = 32  # batches are cut to a multiple of this, so that few shapes occur


@dataclass(frozen=True)
class TokenRows:
    """R rows of up to L tokens.

    input_ids int32 [R, L], right-padded with `pad_id`; trained bool [R, L], True where the token is a label;
    lengths int32 [R], the number of real tokens.
    """

    input_ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, indices: Sequence[int] | np.ndarray) -> TokenRows:
        """Return the rows at these positions, in this order."""
        return TokenRows(self.input_ids[indices], self.trained[indices], self.lengths[indices])

    def in_pieces(self, num_tokens: int) -> tuple[TokenRows, np.ndarray]:
        """Return the rows cut into pieces of `num_tokens`, which divides L, and how many each row gave, int64 [R].

        The first token of a piece has no context, so it is not trained; pieces without a trained token are left out.
        """
        num_rows, row_tokens = self.input_ids.shape
        firsts = np.arange(0, row_tokens, num_tokens)
        trained = self.trained.reshape(-1, num_tokens).copy()
        trained[:, 0] = False
        lengths = (self.lengths[:, None] - firsts).clip(0, num_tokens).reshape(-1)
        some = trained.any(axis=1)
        pieces = TokenRows(self.input_ids.reshape(-1, num_tokens)[some], trained[some], lengths[some])
        return pieces, some.reshape(num_rows, -1).sum(axis=1)


def window_starts(num_tokens: int, context_tokens: int, min_tokens: int) -> list[int]:
    """Return where the windows of a document begin; windows shorter than `min_tokens` (at least 2) are left out."""
    assert context_tokens >= 2
    shortest = max(min_tokens, 2)
    return [start for start in range(0, num_tokens, context_tokens - 1) if num_tokens - start >= shortest]


def windows(ids: np.ndarray, context_tokens: int, min_tokens: int) -> list[np.ndarray]:
    """Cut the tokens of one document, int32 [n], into windows of at most `context_tokens`."""
    return [ids[start : start + context_tokens] for start in window_starts(len(ids), context_tokens, min_tokens)]


def stack_rows(ids: Sequence[np.ndarray], trained: Sequence[np.ndarray], context_tokens: int, pad_id: int) -> TokenRows:
    """Right-pad sequences of at most `context_tokens` to rows; see `TokenRows`."""
    input_ids = np.full((len(ids), context_tokens), pad_id, dtype=np.int32)
    labelled = np.zeros((len(ids), context_tokens), dtype=bool)
    lengths = np.array([len(part) for part in ids], dtype=np.int32)
    for row, (part, flags) in enumerate(zip(ids, trained, strict=True)):
        input_ids[row, : len(part)] = part
        labelled[row, : len(part)] = flags
    labelled[:, :1] = False
    return TokenRows(input_ids, labelled, lengths)


def collate(rows: TokenRows, *, crop: bool = False) -> dict[str, Tensor]:
    """Return {input_ids, labels, attention_mask}, each int64 [R, L]; labels are not shifted.

    `crop` cuts columns that are padding in every row, down to a multiple of 32.
    """
    num_columns = rows.input_ids.shape[1]
    if crop:
        longest = int(rows.lengths.max(initial=1))
        num_columns = min(num_columns, -(-longest // _COLUMN_STEP) * _COLUMN_STEP)
    input_ids = torch.from_numpy(rows.input_ids[:, :num_columns].astype(np.int64))
    trained = torch.from_numpy(rows.trained[:, :num_columns].copy())
    columns = torch.arange(num_columns)
    attention_mask = (columns < torch.from_numpy(rows.lengths.astype(np.int64))[:, None]).long()
    labels = torch.where(trained, input_ids, torch.full_like(input_ids, IGNORED))
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
