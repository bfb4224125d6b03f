"""Jobs on the disk: a file of lines each, so that a server that starts again still shows what was done.

jobs/0f3a.jsonl     {"job": {...}}                          what was asked
{"id": 7, "event": "cost", "data": ...}  what was said; progress is left out
{"job": {...}}                          how it ended
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_train.json_text import parse_json
from bitnet_train.serve.playground.events import PROGRESS, Event

MOST_FILE_BYTES = 32 << 20  # of a job that is read back


@dataclass
class Kept:
    """A job that was read back."""

    job: Mapping[str, Any]
    events: list[Event] = field(default_factory=list)


class JobStore:
    """The folder of all jobs. What the disk refuses is left out: a job goes on without a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def job(self, number: str, job: Mapping[str, Any]) -> None:
        """Write what a job is now."""
        self._append(number, {"job": job})

    def event(self, number: str, event: Event) -> None:
        """Write what it said."""
        if event.name != PROGRESS:
            self._append(number, {"id": event.id, "event": event.name, "data": event.data})

    def forget(self, number: str) -> None:
        """Remove the file of a job."""
        with suppress(OSError):
            self._file(number).unlink()

    def read_back(self) -> list[Kept]:
        """Return all jobs, the oldest first; a file that cannot be read is passed over."""
        found = [kept for path in self._folder.glob("*.jsonl") if (kept := _read(path)) is not None]
        return sorted(found, key=lambda kept: float(kept.job["created"]))

    def _append(self, number: str, line: Mapping[str, Any]) -> None:
        with suppress(OSError), self._file(number).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _file(self, number: str) -> Path:
        return self._folder / f"{number}.jsonl"


def _read(path: Path) -> Kept | None:
    kept: Kept | None = None
    try:
        for line in _lines(path):
            if "job" in line:
                kept = Kept(line["job"], kept.events if kept else [])
            elif kept is not None:
                kept.events.append(Event(int(line["id"]), str(line["event"]), line["data"]))
        return kept if kept and {"id", "kind", "status", "created"} <= kept.job.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.stat().st_size > MOST_FILE_BYTES:
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # the last one, where the power went
            value = parse_json(line)
            if isinstance(value, dict):
                yield value
