"""Cut token sequences into rows of one length, one document each; `packing` may then put several into a row.

A document of n tokens (its leading BOS included) becomes windows that start every L-1 tokens, L = `context_tokens`:

    tokens    0 1 2 3 4 5 6 7 8            L = 4
    row 0     0 1 2 3
    row 1           3 4 5 6                the overlap of one token gives token 4 its context, so every
    row 2                 6 7 8 .          token but the first is predicted exactly once; . is padding

Padding stands on the right (causal attention never sees it) and has label -100; `collate` cuts the columns that are
padding in the whole batch. Of rows with one document it makes attention_mask, 0 on padding; of packed rows position_ids
that begin anew with every document and with the padding, and no mask, which is what keeps documents apart.

The first token of a row has no context, so its label is -100 too, and `trained.sum()` counts predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # Hugging Face's label for "not trained"
_COLUMN_STEP = 32  # batches are cut to a multiple of this, so that few shapes occur


@dataclass(frozen=True)
class TokenRows:
    """R rows of up to L tokens.

    input_ids int32 [R, L], right-padded with `pad_id`; trained bool [R, L], True where the token is a label;
    lengths int32 [R], the number of real tokens; starts bool [R, L], True where a document begins, None = one in a row.
    """

    input_ids: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, indices: Sequence[int] | np.ndarray) -> TokenRows:
        """Return the rows at these positions, in this order."""
        starts = None if self.starts is None else self.starts[indices]
        return TokenRows(self.input_ids[indices], self.trained[indices], self.lengths[indices], starts)

    @property
    def padding_share(self) -> float:
        """The share of all columns that is padding; 0 without rows."""
        return 1 - float(self.lengths.sum()) / self.input_ids.size if len(self) else 0.0

    def padded_with(self, pad_id: int) -> TokenRows:
        """Return the same rows with another padding token."""
        is_real = np.arange(self.input_ids.shape[1]) < self.lengths[:, None]
        return replace(self, input_ids=np.where(is_real, self.input_ids, np.int32(pad_id)))

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
        starts = None if self.starts is None else self.starts.reshape(-1, num_tokens)[some]
        pieces = TokenRows(self.input_ids.reshape(-1, num_tokens)[some], trained[some], lengths[some], starts)
        return pieces, some.reshape(num_rows, -1).sum(axis=1)


def concatenate(parts: Sequence[TokenRows]) -> TokenRows:
    """Return rows of one width one after the other; `starts` where any part has them."""
    input_ids, trained, lengths = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("input_ids", "trained", "lengths")
    )
    if all(part.starts is None for part in parts):
        return TokenRows(input_ids, trained, lengths)
    starts = [np.zeros_like(part.trained) if part.starts is None else part.starts for part in parts]
    return TokenRows(input_ids, trained, lengths, np.concatenate(starts))


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

    Packed rows give {input_ids, labels, position_ids, real_tokens} instead, the last 0 on padding; no model reads it.
    `crop` cuts columns that are padding in every row, down to a multiple of 32.
    """
    num_columns = rows.input_ids.shape[1]
    if crop:
        longest = int(rows.lengths.max(initial=1))
        num_columns = min(num_columns, -(-longest // _COLUMN_STEP) * _COLUMN_STEP)
    input_ids = torch.from_numpy(rows.input_ids[:, :num_columns].astype(np.int64))
    trained = torch.from_numpy(rows.trained[:, :num_columns].copy())
    columns = torch.arange(num_columns)
    lengths = torch.from_numpy(rows.lengths.astype(np.int64))[:, None]
    is_real = (columns < lengths).long()
    labels = torch.where(trained, input_ids, torch.full_like(input_ids, IGNORED))
    if rows.starts is None:
        return {"input_ids": input_ids, "labels": labels, "attention_mask": is_real}
    starts = torch.from_numpy(rows.starts[:, :num_columns]) | (columns == lengths)
    return {"input_ids": input_ids, "labels": labels, "position_ids": positions_of(starts), "real_tokens": is_real}


def positions_of(starts_RL: Tensor) -> Tensor:
    """Return int64 [R, L] positions that begin anew at every start; the first column is one."""
    columns = torch.arange(starts_RL.shape[1]).expand(starts_RL.shape)
    return columns - torch.where(starts_RL, columns, 0).cummax(dim=1).values
