"""What conversion will do, or has done, to every layer of a model: a table to look at before anything is changed."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bitnet_train.model.patterns import star_numbers
from bitnet_train.quant.scheme import WeightScheme

_COLUMNS = ("layer", "N x K", "becomes", "layers")
_WIDTH = 80


@dataclass(frozen=True)
class PlanRow:
    """What happens to one layer. `shape` is (N, K): outputs, inputs (for an embedding: rows, width)."""

    name: str
    role: str
    shape: tuple[int, int]
    action: Literal["convert", "keep"]
    reason: str
    scheme: WeightScheme | None = None
    """How the weights of a converted layer are written; None for a layer that is kept."""


@dataclass(frozen=True)
class Plan:
    """Every Linear, Conv1D and Embedding of a model with what happens to it."""

    rows: tuple[PlanRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def converted(self) -> tuple[str, ...]:
        """Names of the layers that are converted, in model order."""
        return tuple(row.name for row in self.rows if row.action == "convert")

    @property
    def schemes(self) -> dict[str, WeightScheme]:
        """The scheme of every layer that is converted, in model order."""
        return {row.name: row.scheme for row in self.rows if row.scheme is not None}

    @property
    def num_weights(self) -> int:
        """Weights in the converted layers."""
        return sum(row.shape[0] * row.shape[1] for row in self.rows if row.action == "convert")

    def render(self) -> str:
        """A table with one line per family of equal layers, then why some stay float, totals and notes; 80 columns.

        Only names of more than about 40 characters make it wider.
        """
        families = Counter(_cells(row) for row in self.rows)
        lines = [_COLUMNS, *((*cells, str(count)) for cells, count in families.items())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        total = f"{len(self.converted)} of {len(self.rows)} layers become 1-bit, {self.num_weights:,} weights."
        return "\n".join([*(line.rstrip() for line in table), *self._kept(), total, *map(_folded, self.notes)])

    def _kept(self) -> list[str]:
        """Return a line for each reason to keep layers float, with the families that it keeps."""
        families: dict[str, dict[str, None]] = {}
        for row in self.rows:
            if row.action == "keep":
                families.setdefault(row.reason, {})[star_numbers(row.name)] = None
        return [_folded(f"Float: {', '.join(names)}: {reason}.") for reason, names in families.items()]


def describe_schemes(schemes: Iterable[WeightScheme]) -> str:
    """In a few words: `binary per row`, or of a mix each scheme with its layers, the most frequent first."""
    counts = Counter(scheme.describe() for scheme in schemes)
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{count} layers {words}" for words, count in counts.most_common())


def _cells(row: PlanRow) -> tuple[str, ...]:
    scheme = row.scheme.describe() if row.scheme is not None else "float"
    return (star_numbers(row.name), f"{row.shape[0]} x {row.shape[1]}", scheme)


def _folded(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
