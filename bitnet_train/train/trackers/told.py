"""What a tracker was told of a run, so that a resumed run is one run there, and no step is told twice.

It is kept in the run directory:

    trackers/wandb.json      `id` of the run in the tracker, and where that tracker keeps it
    trackers/wandb.steps     the last step that it was told, for each kind of line of metrics.jsonl

A line of metrics.jsonl is known by its first figure: lines of training, of validation and of others have steps of their
own. The last steps are written in place after every line that a tracker has taken, which costs microseconds and
survives a kill. So a tracker that takes up a run is told what it has missed, out of metrics.jsonl, and what is made
again after a kill, the same figures, is not told again.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitnet_train.json_text import parse_json
from bitnet_train.whole import write_whole

FOLDER = "trackers"
SAMPLES_FILE = "samples.jsonl"
_WIDTH = 1024  # bytes that the last steps are padded to, so that writing them is one write in place; it only grows


class Told:
    """The identity of a run in one tracker, and the last step of each kind of line that it was told."""

    def __init__(self, run_dir: Path, kind: str, uri: str | None = None) -> None:
        self._identity = run_dir / FOLDER / f"{kind}.json"
        self._steps_file = run_dir / FOLDER / f"{kind}.steps"
        self._uri = uri
        self._descriptor: int | None = None
        self._width = _WIDTH
        kept = _read_object(self._identity)
        self.is_new = kept.get("uri") != uri or not isinstance(kept.get("id"), str)
        self.id: str = secrets.token_hex(4) if self.is_new else kept["id"]
        steps = {} if self.is_new else _read_object(self._steps_file)
        self.steps = {name: step for name, step in steps.items() if isinstance(step, int)}

    @property
    def last_step(self) -> int:
        """The last step of all; 0 before the first."""
        return max(self.steps.values(), default=0)

    def take_id(self, identity: str) -> None:
        """Take the id that the tracker gave the run."""
        self.id = identity

    def start_anew(self) -> None:
        """Be another run to the tracker: it cannot be told to forget what it knows."""
        self.id, self.is_new, self.steps = secrets.token_hex(4), True, {}

    def go_back_to(self, step: int) -> None:
        """Forget what was told after a step."""
        self.steps = {name: min(last, step) for name, last in self.steps.items()}

    def keep(self) -> None:
        """Write the identity down, before the first step is told."""
        write_whole(self._identity, json.dumps({"id": self.id, "uri": self._uri}) + "\n")
        self._write_steps()

    def has(self, figures: Mapping[str, Any], step: int) -> bool:
        """Whether such a line of this step, or of a later one, was told."""
        return step <= self.steps.get(_kind(figures), -1)

    def note(self, figures: Mapping[str, Any], step: int) -> None:
        """Remember that a line was told."""
        self.steps[_kind(figures)] = step
        self._write_steps()

    def _write_steps(self) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._steps_file, os.O_WRONLY | os.O_CREAT, 0o666)
            self._width = max(_WIDTH, os.fstat(self._descriptor).st_size)
        text = json.dumps(self.steps).ljust(self._width)
        self._width = len(text)
        os.pwrite(self._descriptor, text.encode(), 0)

    def close(self) -> None:
        """Close the file of the last steps."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def earlier_lines(metrics_file: Path, up_to: int | None) -> list[tuple[int, dict[str, float]]]:
    """Return what metrics.jsonl has up to a step (None: all), in order of steps, each kind of line once a step.

    Of a step that was made twice it is the later line. What JSON lacks is NaN here; a damaged line is left out.
    """
    found: dict[tuple[int, str], dict[str, float]] = {}
    for row in _rows(metrics_file):
        step = row.pop("step", None)
        if not isinstance(step, int) or not row or (up_to is not None and step > up_to):
            continue
        found[step, _kind(row)] = {name: math.nan if value is None else value for name, value in row.items()}
    return sorted(((step, row) for (step, _), row in found.items()), key=lambda each: each[0])


def earlier_samples(run_dir: Path) -> dict[tuple[int, str], str]:
    """Return the texts that the run has written so far, by step and prompt; none where it has no samples.jsonl."""
    names = ("step", "prompt", "text")
    rows = [tuple(row.get(name) for name in names) for row in _rows(run_dir / SAMPLES_FILE)]
    return {(at, str(prompt)): str(text) for at, prompt, text in rows if isinstance(at, int) and text is not None}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = parse_json(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _kind(figures: Mapping[str, Any]) -> str:
    return next(iter(figures), "")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
