"""The runs on this disk: below `run.root`, and those that were started from the page."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitnet_train.errors import BitnetTrainError
from bitnet_train.json_text import parse_json
from bitnet_train.serve.playground.clean import Names
from bitnet_train.serve.playground.house import House
from bitnet_train.serve.playground.refusal import not_found

METRICS, CONFIG = "metrics.jsonl", "config.yaml"
MOST_RUNS, MOST_POINTS = 300, 1000
_MOST_FACT_BYTES = 1 << 20
_RECIPE = re.compile(r"^recipe: (.{1,100})$", re.MULTILINE)
_SHOWN_FACTS = ("run", "train", "evaluate", "validate")
_DEPTHS = ("*", "*/*", "*/*/*")


class Runs:
    """See above."""

    def __init__(self, roots: Sequence[Path], house: House, names: Names) -> None:
        self._roots, self._house, self._names = roots, house, names

    def listed(self) -> list[dict[str, Any]]:
        """Return all runs, the newest first, without their curves."""
        return [self._brief(run) for run in self._found()]

    def told(self, number: str) -> dict[str, Any]:
        """Return one run with its curve, facts and configuration. Raises Refused."""
        run = next((run for run in self._found() if run_id(run) == number), None)
        if run is None:
            raise not_found("run", number)
        facts = {name: _without_config(found) for name in _SHOWN_FACTS if (found := _facts(run, name)) is not None}
        return {
            **self._brief(run),
            "curve": curve(run / METRICS),
            "facts": self._names.clean_all(facts),
            "config": self._names.clean_all(self._config(run)),
        }

    def _config(self, run: Path) -> Mapping[str, Any]:
        try:
            return self._house.saved_config(run / CONFIG)
        except BitnetTrainError:
            return {}

    def _brief(self, run: Path) -> dict[str, Any]:
        root = next(root for root in self._roots if run.is_relative_to(root))
        return {
            "id": run_id(run),
            "name": run.relative_to(root).as_posix(),
            "recipe": _recipe(run),
            "status": self._status(run),
            "started": (run / CONFIG).stat().st_mtime,
        }

    def _status(self, run: Path) -> str:
        if self._house.is_running(run):
            return "running"
        told = _facts(run, "run")
        if told is None:
            return "stopped"
        return "done" if told.get("passed") is not False else "failed"

    def _found(self) -> list[Path]:
        found: dict[Path, float] = {}
        for root in self._roots:
            for depth in _DEPTHS:
                for path in root.glob(f"{depth}/{CONFIG}"):
                    with suppress(OSError):
                        found[path.parent] = path.stat().st_mtime
        return sorted(found, key=lambda run: -found[run])[:MOST_RUNS]


def run_id(run: Path) -> str:
    """Return what a run is called on the page: nothing of where it lies."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:12]


def curve(path: Path) -> list[dict[str, Any]]:
    """Return the figures of a run by step, thinned to so many points; the last is always there."""
    points: dict[int, dict[str, Any]] = {}
    with suppress(OSError):
        for row in points_of(path.read_text(encoding="utf-8", errors="replace")):
            points.setdefault(row["step"], {}).update(row)
    rows = [points[step] for step in sorted(points)]
    stride = max(1, math.ceil(len(rows) / MOST_POINTS))
    return rows[::-1][::stride][::-1]


def points_of(text: str) -> Iterator[dict[str, Any]]:
    """Yield the figures of whole lines of a run's metrics."""
    for line in text.splitlines():
        with suppress(ValueError):
            row = parse_json(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield {str(name): value for name, value in row.items() if isinstance(value, int | float)}


def _without_config(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "config"}


def _facts(run: Path, stage: str) -> dict[str, Any] | None:
    path = run / "facts" / f"{stage}.json"
    try:
        if path.stat().st_size > _MOST_FACT_BYTES:
            return None
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _recipe(run: Path) -> str:
    try:
        with (run / CONFIG).open(encoding="utf-8") as file:
            found = _RECIPE.search(file.read(4096))
    except (OSError, ValueError):
        return ""
    return found[1].strip("'\" ") if found else ""
