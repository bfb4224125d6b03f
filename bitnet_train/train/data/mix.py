"""Several data sets with weights: `data.mix=[{path: a.jsonl, weight: 2}, {path: b.txt, weight: 1}]`.

A weight is a share of the rows that are read: above, two of three come from a.jsonl. A pass of the mix has as many rows
as the data sets together. Each data set gives its share of them, from where the last pass stopped in an endless
sequence of passes of its own, so that none of its rows comes twice before all have come once:

    a: 6 rows, weight 2     b: 6 rows, weight 1          a pass of 12: eight of a, four of b, in drawn order
    pass 0   a0 a1 a2 a3 a4 a5 | a0' a1'    b0 b1 b2 b3
    pass 1   a2' a3' a4' a5' | a0" ...      b4 b5 | b0' b1'            ' and " are other permutations

All of it is a function of (seed, pass): a run continues in the middle of one from its step alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mix:
    """How many rows each data set has, numbered one data set after the other, and their weights."""

    part_rows: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def num_rows(self) -> int:
        """Of a pass."""
        return sum(self.part_rows)

    def shares(self) -> list[int]:
        """Return how many rows of a pass each data set gives, at least one: largest remainders."""
        wanted = [self.num_rows * weight / sum(self.weights) for weight in self.weights]
        shares = [max(1, math.floor(rows)) for rows in wanted]
        by_remainder = sorted(range(len(wanted)), key=lambda part: (shares[part] - wanted[part], part))
        for part in by_remainder[: max(0, self.num_rows - sum(shares))]:
            shares[part] += 1
        while sum(shares) > self.num_rows:
            shares[shares.index(max(shares))] -= 1
        return shares

    def rows_of_pass(self, seed: int, number_of_pass: int) -> np.ndarray:
        """Return the row numbers in the order in which a pass reads them, int64 [num_rows]; some come twice."""
        firsts = np.cumsum((0, *self.part_rows))
        drawn = [
            firsts[part] + self._of_part(seed, part, number_of_pass * share, share)
            for part, share in enumerate(self.shares())
        ]
        order = np.random.default_rng([seed, number_of_pass]).permutation(self.num_rows)
        return np.concatenate(drawn)[order]

    def _of_part(self, seed: int, part: int, start: int, count: int) -> np.ndarray:
        """Return `count` rows of the endless sequence of a data set, from position `start`."""
        num_rows = self.part_rows[part]
        passes = range(start // num_rows, -(-(start + count) // num_rows))
        sequence = [np.random.default_rng([seed, number, part + 1]).permutation(num_rows) for number in passes]
        first = start - passes.start * num_rows
        return np.concatenate(sequence)[first : first + count]
