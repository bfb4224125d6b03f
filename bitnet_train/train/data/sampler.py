"""Which rows each optimiser step sees, as a pure function of (seed, step).

The rows are read in passes; pass p is a permutation drawn from (seed, p). Batch i takes positions
i*B ... i*B+B-1 of the endless concatenation of passes, so resuming at step i needs no history: start at i.

    pass 0              pass 1              ...        5 rows, B = 2:  batch 2 straddles two passes
    3 1 | 4 0 | 2       2 | 0 3 | 1 4

The first steps may read pieces of rows instead (`ShortRows`): those of the same rows in the same order, one row's after
the other's. Whole rows then begin with the first that no piece was read of, so no text is read twice within a pass.

    pass 0, two short steps, two pieces a row            rows 3 1 4 0 2, B = 2, whole rows from step 2 on
    3a 3b | 1a 1b | 4 0 | 2 ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bitnet_train.train.data.mix import Mix


@dataclass(frozen=True)
class ShortRows:
    """Pieces of rows for the first `num_steps` steps; they are numbered row by row, `pieces_R` int64 [R] of each."""

    pieces_R: np.ndarray
    num_steps: int

    def __post_init__(self) -> None:
        assert self.num_steps >= 0
        assert self.num_pieces > 0

    @property
    def num_pieces(self) -> int:
        """Of all rows."""
        return int(self.pieces_R.sum())

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of the pieces of `rows`, in that order, int64 [P]."""
        counts = self.pieces_R[rows]
        firsts = (np.cumsum(self.pieces_R) - self.pieces_R)[rows]
        return np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())

    def begun(self, rows: np.ndarray, num_pieces: int) -> int:
        """Return how many of `rows` were begun when `num_pieces` of their pieces had been read."""
        return int(np.searchsorted(np.cumsum(self.pieces_R[rows]), num_pieces)) + 1 if num_pieces else 0


class StepBatchSampler:
    """An endless batch sampler for `DataLoader(batch_sampler=...)`: one batch is one optimiser step's rows.

    Has no length on purpose: the trainer stops at its own `max_steps`. With `world` ranks every rank gets its
    contiguous share of each step's rows; turn Lightning's `use_distributed_sampler` off. The numbers of pieces follow
    those of rows: piece 0 is `num_rows`.
    """

    def __init__(
        self,
        num_rows: int,
        batch_rows: int,
        seed: int,
        *,
        short: ShortRows | None = None,
        mix: Mix | None = None,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert min(num_rows, batch_rows, world) > 0
        assert start >= 0
        assert 0 <= rank < world
        assert batch_rows % world == 0, f"{batch_rows} rows a step cannot be shared by {world} ranks"
        assert mix is None or (mix.num_rows == num_rows and short is None)
        self.num_rows, self.batch_rows, self.seed, self.mix = num_rows, batch_rows, seed, mix
        self.start, self.rank, self.world = start, rank, world
        self.short = short if short is not None and short.num_steps > 0 else None
        self._rows_of_pass = lru_cache(maxsize=2)(self._draw_rows)
        self._pieces_of_pass = lru_cache(maxsize=2)(self._draw_pieces)
        self._shift = 0 if self.short is None else self._rows_begun(self.short) - self.short.num_steps * batch_rows

    def batch(self, index: int) -> list[int]:
        """Return the numbers of the rows or pieces of step `index`, this rank's share only."""
        share = self.batch_rows // self.world
        first = index * self.batch_rows + self.rank * share
        if self.short is not None and index < self.short.num_steps:
            return [self._piece(self.short, position) for position in range(first, first + share)]
        return [self._row(position + self._shift) for position in range(first, first + share)]

    def rows_read(self, steps: int) -> int:
        """Return how many rows the first `steps` steps began to read, of all ranks, counted over passes."""
        if self.short is None:
            return steps * self.batch_rows
        short_steps = min(steps, self.short.num_steps)
        begun = self._rows_begun(ShortRows(self.short.pieces_R, short_steps)) if short_steps else 0
        return begun + (steps - short_steps) * self.batch_rows

    def __iter__(self) -> Iterator[list[int]]:
        index = self.start
        while True:
            yield self.batch(index)
            index += 1

    def _row(self, position: int) -> int:
        number_of_pass, offset = divmod(position, self.num_rows)
        return int(self._rows_of_pass(number_of_pass)[offset])

    def _piece(self, short: ShortRows, position: int) -> int:
        number_of_pass, offset = divmod(position, short.num_pieces)
        return self.num_rows + int(self._pieces_of_pass(number_of_pass)[offset])

    def _rows_begun(self, short: ShortRows) -> int:
        """The position, in the endless concatenation, of the first row that no piece was read of."""
        number_of_pass, num_pieces = divmod(short.num_steps * self.batch_rows, short.num_pieces)
        return number_of_pass * self.num_rows + short.begun(self._rows_of_pass(number_of_pass), num_pieces)

    def _draw_rows(self, number_of_pass: int) -> np.ndarray:
        return order_of_pass(self.num_rows, self.seed, number_of_pass, self.mix)

    def _draw_pieces(self, number_of_pass: int) -> np.ndarray:
        assert self.short is not None
        return self.short.order(self._rows_of_pass(number_of_pass))


def order_of_pass(num_rows: int, seed: int, number_of_pass: int, mix: Mix | None = None) -> np.ndarray:
    """Return the row numbers in the order in which a pass reads them, int64 [num_rows]; of a `mix` as it draws them."""
    if mix is not None:
        return mix.rows_of_pass(seed, number_of_pass)
    return np.random.default_rng([seed, number_of_pass]).permutation(num_rows)
