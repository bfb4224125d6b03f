"""How many steps an epoch is: the passes over the training rows that so many steps make.

    rows read    batch_rows * steps, or fewer where the first steps read pieces of rows (`sampler`)
    epochs       rows read / rows,  1 = every row once

A run of E epochs takes the fewest steps that read E times the rows; the last of them may begin the next pass, with less
than a batch. E is taken as it is written: 0.1 of 30 rows are 3, whatever a float makes of it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bitnet_train.train.data.row_lengths import RowLengths
from bitnet_train.train.data.sampler import ShortRows, StepBatchSampler


@dataclass(frozen=True)
class Epochs:
    """Passes by step; `pieces_R`, int64 [R], counts the pieces of each row where the first steps read those."""

    num_rows: int
    batch_rows: int
    seed: int
    pieces_R: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert min(self.num_rows, self.batch_rows) > 0

    def read(self, steps: int, short_steps: int = 0) -> float:
        """Return the epochs that the first `steps` steps read, of which so many read pieces."""
        return self._rows_read(steps, short_steps) / self.num_rows

    def steps(self, max_epochs: float, lengths: RowLengths) -> int:
        """Return the fewest steps that read `max_epochs` epochs; `lengths` says how many of them read pieces."""
        wanted = math.ceil(Fraction(str(max_epochs)) * self.num_rows)
        fewest = -(-wanted // self.batch_rows)
        if self.pieces_R is None:
            return max(1, fewest)
        all_pieces = -(-math.ceil(max_epochs + 1) * int(self.pieces_R.sum()) // self.batch_rows)
        enough = range(1, fewest + all_pieces + 1)
        return enough[bisect_left(enough, wanted, key=lambda steps: self._rows_read(steps, lengths.short_steps(steps)))]

    def _rows_read(self, steps: int, short_steps: int) -> int:
        short = ShortRows(self.pieces_R, short_steps) if self.pieces_R is not None else None
        return StepBatchSampler(self.num_rows, self.batch_rows, self.seed, short=short).rows_read(steps)
