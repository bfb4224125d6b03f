"""The verdict of `validate`: its levels, each passed or not, with what was compared and what differs first."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

LEVEL_NAMES = ("bytes", "integers", "layer", "logits", "tokens_and_perplexity", "native")

Figure = int | float | str


@dataclass(frozen=True)
class Level:
    """One level of the proof.

    `detail` says what was compared with what; `figures` are the numbers; `first_failure` names the first file, tensor
    or layer that differs, and is None exactly when the level passed.
    """

    name: str
    detail: str
    figures: dict[str, Figure] = field(default_factory=dict)
    first_failure: str | None = None

    @property
    def passed(self) -> bool:
        """True when nothing differs."""
        return self.first_failure is None


@dataclass(frozen=True)
class ValidationReport:
    """The levels of one folder or file, and what it was compared with; `expected` names those that have to run."""

    path: str
    compared_with: str
    levels: tuple[Level, ...]
    expected: tuple[str, ...] = LEVEL_NAMES

    @property
    def passed(self) -> bool:
        """True when every level ran and passed."""
        return len(self.levels) == len(self.expected) and all(level.passed for level in self.levels)

    @property
    def first_failure(self) -> str | None:
        """The first thing that differs at the lowest level that failed; None when all passed."""
        return next((level.first_failure for level in self.levels if not level.passed), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for a JSON file."""
        levels = [{**asdict(level), "passed": level.passed} for level in self.levels]
        return {"path": self.path, "compared_with": self.compared_with, "passed": self.passed, "levels": levels}

    def render(self) -> Table:
        """Return the report as a table for the terminal."""
        table = Table(title=f"{self.path}: {'valid' if self.passed else 'NOT VALID'}", show_lines=True)
        for column in ("level", "verdict", "what was compared, and what differs"):
            table.add_column(column, overflow="fold")
        for level in self.levels:
            verdict = "[green]passed[/]" if level.passed else "[red]FAILED[/]"
            table.add_row(level.name, verdict, "\n".join([level.detail, *_lines(level)]))
        table.caption = f"Compared with {self.compared_with}."
        return table


def _lines(level: Level) -> list[str]:
    figures = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in level.figures.items()
    )
    failure = f"first difference: {level.first_failure}" if level.first_failure else ""
    return [line for line in (figures, failure) if line]
