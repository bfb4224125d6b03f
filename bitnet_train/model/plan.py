"""What conversion will do, or has done, to every layer of a model: a table to look at before anything is changed."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
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


@dataclass(frozen=True, repr=False)
class Plan:
    """Every Linear, Conv1D and Embedding of a model with what happens to it.

    `print(plan)` shows the table of `render`, a notebook the same as HTML. `rows` has every layer, `converted` the
    names of those that become 1-bit, `schemes` how each of them is written.
    """

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

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<Plan: {self._total()} print() shows the table.>"

    def render(self) -> str:
        """A table with one line per family of equal layers, then why some stay float, totals and notes; 80 columns.

        Only names of more than about 40 characters make it wider.
        """
        lines = [_COLUMNS, *self._lines()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in table), *map(_folded, self._below())])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        head = _html_row("th", _COLUMNS)
        body = "".join(_html_row("td", line) for line in self._lines())
        below = "<br>".join(map(escape, self._below()))
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table><p>{below}</p>"

    def _lines(self) -> Iterator[tuple[str, ...]]:
        """Yield the cells of a family of equal layers, and how many they are."""
        for cells, count in Counter(_cells(row) for row in self.rows).items():
            yield (*cells, str(count))

    def _below(self) -> list[str]:
        return [*self._kept(), self._total(), *self.notes]

    def _total(self) -> str:
        return f"{len(self.converted)} of {len(self.rows)} layers become 1-bit, {self.num_weights:,} weights."

    def _kept(self) -> list[str]:
        """Return a line for each reason to keep layers float, with the families that it keeps."""
        families: dict[str, dict[str, None]] = {}
        for row in self.rows:
            if row.action == "keep":
                families.setdefault(row.reason, {})[star_numbers(row.name)] = None
        return [f"Float: {', '.join(names)}: {reason}." for reason, names in families.items()]


def describe_schemes(schemes: Iterable[WeightScheme]) -> str:
    """In a few words: `binary per row`, or of a mix each scheme with its layers, the most frequent first."""
    counts = Counter(scheme.describe() for scheme in schemes)
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{count} layers {words}" for words, count in counts.most_common())


def _cells(row: PlanRow) -> tuple[str, ...]:
    scheme = row.scheme.describe() if row.scheme is not None else "float"
    return (star_numbers(row.name), f"{row.shape[0]} x {row.shape[1]}", scheme)


def _html_row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _folded(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
