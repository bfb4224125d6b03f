"""Which rows each optimiser step sees, as a pure function of (seed, step).

The rows are read in passes; pass p is a permutation drawn from (seed, p). Batch i takes positions
i*B ... i*B+B-1 of the endless concatenation of passes, so resuming at step i needs no history: start at i.

    pass 0              pass 1              ...        5 rows, B = 2:  batch 2 straddles two passes
    3 1 | 4 0 | 2       2 | 0 3 | 1 4
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np


class StepBatchSampler:
    """An endless batch sampler for `DataLoader(batch_sampler=...)`: one batch is one optimiser step's rows.

    Has no length on purpose: the trainer stops at its own `max_steps`. With `world` ranks every rank gets its
    contiguous share of each step's rows; turn Lightning's `use_distributed_sampler` off.
    """

    def __init__(
        self, num_rows: int, batch_rows: int, seed: int, *, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        assert min(num_rows, batch_rows, world) > 0
        assert start >= 0
        assert 0 <= rank < world
        assert batch_rows % world == 0, f"{batch_rows} rows a step cannot be shared by {world} ranks"
        self.num_rows, self.batch_rows, self.seed = num_rows, batch_rows, seed
        self.start, self.rank, self.world = start, rank, world
        self._permutation = lru_cache(maxsize=2)(self._draw_permutation)

    def batch(self, index: int) -> list[int]:
        """Return the row numbers of step `index`, this rank's share only."""
        share = self.batch_rows // self.world
        first = index * self.batch_rows + self.rank * share
        return [self._row(position) for position in range(first, first + share)]

    def __iter__(self) -> Iterator[list[int]]:
        index = self.start
        while True:
            yield self.batch(index)
            index += 1

    def _row(self, position: int) -> int:
        number_of_pass, offset = divmod(position, self.num_rows)
        return int(self._permutation(number_of_pass)[offset])

    def _draw_permutation(self, number_of_pass: int) -> np.ndarray:
        return order_of_pass(self.num_rows, self.seed, number_of_pass)


def order_of_pass(num_rows: int, seed: int, number_of_pass: int) -> np.ndarray:
    """Return the row numbers in the order in which a pass reads them, int64 [num_rows]."""
    return np.random.default_rng([seed, number_of_pass]).permutation(num_rows)
