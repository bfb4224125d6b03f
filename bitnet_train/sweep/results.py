"""What the trials of a sweep came to: rows, the best first; a table for a terminal; a page with pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_train.report.document import (
    Curves,
    Document,
    Dot,
    Dots,
    Grid,
    Line,
    Paragraph,
    Section,
    Status,
    Table,
    Tile,
)
from bitnet_train.report.figures import UNKNOWN, cell, duration, number
from bitnet_train.sweep.ranges import DECADES_OF_LOG
from bitnet_train.sweep.study import ERROR
from bitnet_train.train.loop.held_out import MAX_NATS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.table import Table as TerminalTable

PAGE, BEST = "sweep.html", "best.yaml"
MOST_LINES = 8  # of a picture: as many as there are colours
_STATES = {"COMPLETE": "trained", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
_ORDER = tuple(_STATES)


@dataclass(frozen=True)
class Row:
    """One trial: how it stands, its values by key, nats a held-out token in the end and on the way, and its time."""

    number: int
    state: str
    values: Mapping[str, Any]
    nats: float | None
    points: tuple[tuple[float, float], ...]
    seconds: float | None
    error: str

    @property
    def perplexity(self) -> float | None:
        """The perplexity on held-out text."""
        return None if self.nats is None else math.exp(min(self.nats, MAX_NATS))

    @property
    def name(self) -> str:
        """What its run directory is called."""
        return trial_name(self.number)

    @property
    def steps(self) -> int | None:
        """The last step that was measured."""
        return int(self.points[-1][0]) if self.points else None

    def to_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        said = {name: getattr(self, name) for name in ("name", "state", "values", "nats", "perplexity", "steps")}
        return said | {"seconds": self.seconds} | ({"error": self.error} if self.error else {})


def trial_name(number: int) -> str:
    """Return what the run directory of a trial is called."""
    return f"trial-{number:04d}"


def rows_of(trials: Iterable[FrozenTrial]) -> list[Row]:
    """Return the trials, the best first, then those that were pruned, failed, or are being worked on."""
    return [_row(trial) for trial in sorted(trials, key=_rank)]


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the best of those that were trained to their end; None where there is none."""
    return next((row for row in rows if row.state == "trained"), None)


def render_rows(rows: Sequence[Row], keys: Sequence[str]) -> TerminalTable:
    """Return the table for a terminal; of two short keys it fits into 80 columns."""
    from rich.table import Table as TerminalTable

    caption = "Figures of held-out text: nats a token, and perplexity."
    table = TerminalTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, caption=caption)
    for column, name in enumerate(_header(keys)):
        is_name = column < 2
        shown = name.replace(".", ".\n")
        table.add_column(shown, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, keys))
    return table


def document(rows: Sequence[Row], keys: Sequence[str], called: str, folder: Path, most: int) -> Document:
    """Return the page: the best, all trials, their figures over the values that were tried, their curves."""
    best = best_of(rows)
    counts = {state: sum(row.state == state for row in rows) for state in _STATES.values()}
    ended = sum(counts.values()) - counts["running"]
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial yet"
    status = Status("ended" if ended >= most else "running", f"{said}; {most} in all.", "good" if best else "plain")
    sections = [Section("Trials", (Table(_header(keys), tuple(_cells(row, keys) for row in rows)),))]
    if failed := [f"{row.name}: {row.error}" for row in rows if row.error]:
        sections.append(Section("What failed", tuple(Paragraph(line) for line in failed)))
    if dots := tuple(_dots(rows, keys)):
        sections.append(Section("Values", dots))
    if curves := tuple(_curves(rows)):
        sections.append(Section("Curves", (Grid(curves),)))
    footer = f"Written {time.strftime('%Y-%m-%d %H:%M:%S')} from the sweep's journal."
    return Document(f"Sweep of {called}", str(folder), _tiles(best, keys), tuple(sections), footer, status)


def _tiles(best: Row | None, keys: Sequence[str]) -> tuple[Tile, ...]:
    if best is None:
        return ()
    return (
        Tile("best perplexity", number(best.perplexity, 3), f"of held-out text, {best.name}"),
        *(Tile(key, _shown(best.values.get(key)), "of the best trial") for key in keys),
    )


def _curves(rows: Sequence[Row]) -> Iterable[Curves]:
    drawn = [row for row in rows if row.points][:MOST_LINES]
    if drawn:
        lines = tuple(Line(row.name, row.points, at, dots=True) for at, row in enumerate(drawn))
        title = "Held-out text" if len(drawn) == len(rows) else f"Held-out text, the best {len(drawn)}"
        yield Curves(title, "nats a token", lines)


def _dots(rows: Sequence[Row], keys: Sequence[str]) -> Iterable[Dots]:
    """Yield a picture for each key of which numbers were tried: what trials that were trained came to."""
    for key in keys:
        tried = [(row.name, _number(row.values.get(key)), row.nats) for row in rows if row.state == "trained"]
        dots = tuple(Dot(name, value, nats) for name, value, nats in tried if value is not None and nats is not None)
        values = sorted({dot.value for dot in dots})
        if len(values) > 1:
            is_log = values[0] > 0 and values[-1] / values[0] >= 10**DECADES_OF_LOG
            yield Dots(f"{key}, held-out text", "nats a token", dots, is_log)


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    value = trial.value
    return (
        _ORDER.index(trial.state.name),
        math.inf if value is None or math.isnan(value) else value,
        trial.number,
    )


def _row(trial: FrozenTrial) -> Row:
    points = tuple((float(step), value) for step, value in sorted(trial.intermediate_values.items()))
    taken = None if trial.duration is None else trial.duration.total_seconds()
    state, error = _STATES[trial.state.name], str(trial.user_attrs.get(ERROR, ""))
    return Row(trial.number, state, dict(trial.params), trial.value, points, taken, error)


def _header(keys: Sequence[str]) -> tuple[str, ...]:
    return ("trial", "stands", *keys, "nats", "perplexity", "steps", "time")


def _cells(row: Row, keys: Sequence[str]) -> tuple[str, ...]:
    values = (_shown(row.values.get(key)) for key in keys)
    steps = cell(row.steps, lambda steps: number(steps, 0))
    return (row.name, row.state, *values, number(row.nats, 4), number(row.perplexity, 3), steps, duration(row.seconds))


def _shown(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
