"""trackio: a local dashboard without an account, over a SQLite database in the run directory.

Its database is written directly, by the functions that its own `import_csv` uses: `trackio.init` prints to stdout,
asks the hub who is logged in, and turns what goes wrong into warnings. Where the database lies is a constant of its
modules, taken from TRACKIO_DIR when they are imported, so it is set in each of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitnet_train.train.trackers.panels import in_summary, panels
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracker import Artefact, Figure, Line, Status, TrackedRun, Tracker

FOLDER = "trackio"


class TrackioTracker(Tracker):
    """One run in a database of trackio."""

    gathers_s = 1.0

    def __init__(self, run: TrackedRun, told: Told) -> None:
        self._run, self._id, self._step = run, told.id, told.last_step
        self._folder = Path(run.uri).expanduser().absolute() if run.uri else run.run_dir / FOLDER
        self._storage = _storage_in(self._folder)
        self._config: dict[str, Any] | None = None

    def configure(self, config: Mapping[str, Any]) -> None:
        """Show the nested configuration, tags and job type beside it, with the next line that is written."""
        told = {"tags": list(self._run.tags), "job_type": self._run.job_type}
        own = {"_Username": None, "_Created": datetime.now(UTC).isoformat(), "_Group": self._run.group}
        self._config = {**config, **told, **own}

    def log(self, lines: Sequence[Line]) -> None:
        """Write scalars."""
        self._step = max(self._step, *(step or 0 for step, _ in lines))
        self._write([(self._step if step is None else step, panels(figures)) for step, figures in lines])

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Write a text as a row of a table of its step."""
        self._table("samples", {"step": step, "prompt": prompt, "text": text}, step)

    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Write numbers as scalars of the last step, and words as a table; trackio has no summary."""
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        words = {name: value for name, value in figures.items() if isinstance(value, str)}
        if numbers:
            self._write([(step, in_summary({name: float(value) for name, value in numbers.items()}))])
        if words:
            self._table("summary/words", words, step)

    def keep(self, artefact: Artefact) -> None:
        """Write where it lies, as a row of a table."""
        row = {"name": artefact.name, "place": artefact.place, "made from": artefact.made_from, **artefact.facts}
        self._table(f"artefacts/{artefact.name}", row, self._step)

    def _table(self, name: str, row: Mapping[str, Any], step: int) -> None:
        from trackio.table import Table

        self._write([(step, {name: {"_type": Table.TYPE, "_value": [dict(row)]}})])

    def _write(self, lines: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        _point_at(self._folder)
        config, self._config = self._config, None
        self._storage.bulk_log(
            project=self._run.project,
            run=self._run.name,
            run_id=self._id,
            metrics_list=[dict(values) for _, values in lines],
            steps=[step for step, _ in lines],
            config=config,
        )

    def save(self) -> None:
        """Every line is in the database already."""

    def finish(self, status: Status) -> None:
        """Leave all as it is; trackio keeps no state of a run."""


def _storage_in(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage


def _point_at(folder: Path) -> None:
    """Have trackio's modules write there: a process may train one run after another."""
    from trackio import sqlite_storage

    if folder.absolute() == vars(sqlite_storage)["TRACKIO_DIR"]:  # a name that it does not call its own
        return
    for name, module in sys.modules.copy().items():  # a copy in one go: other threads may import
        if name.split(".")[0] == "trackio" and "TRACKIO_DIR" in vars(module):
            vars(module)["TRACKIO_DIR"] = folder.absolute()
