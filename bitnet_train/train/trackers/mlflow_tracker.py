"""MLflow: a SQLite store in the run directory, without a server or an account, or any store that a tracking URI names.

Only its client is used. The fluent API (`mlflow.start_run`) would note the user, the command line and the repository's
address, which have held secrets; MLflow's own telemetry is off. A parameter of MLflow never changes, so what a run goes
on with under another value is a tag. A sample is a row of the table `samples.json` among the artefacts of the run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitnet_train.train.trackers.flat import flat
from bitnet_train.train.trackers.panels import in_summary, panels
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracker import Artefact, Figure, Line, Status, TrackedRun, Tracker
from bitnet_train.whole import whole_file

FOLDER = "mlflow"
SAMPLES = "samples.json"
_STATUS: dict[Status, str] = {"success": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_METRICS_AT_ONCE, _PARAMETERS_AT_ONCE, _LONGEST_PARAMETER = 1000, 100, 6000  # the most that a server takes
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else it tells of every table that it makes
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def store_of(run_dir: Path) -> str:
    """Return the tracking URI of the store inside a run directory."""
    return f"sqlite:///{_database(run_dir)}"


def _database(run_dir: Path) -> Path:
    return (run_dir / FOLDER / "mlflow.db").absolute()


def _make_store(database: Path) -> None:
    """Make an empty store, whole or not at all: it takes MLflow seconds, and a short run may end in between."""
    from mlflow.tracking import MlflowClient

    with whole_file(database) as draft:
        MlflowClient(f"sqlite:///{draft}")


class MLflowTracker(Tracker):
    """One run of MLflow."""

    gathers_s = 1.0

    def __init__(self, run: TrackedRun, told: Told) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._run = run
        if run.uri is None and not _database(run.run_dir).exists():
            _make_store(_database(run.run_dir))
        self._client = MlflowClient(run.uri or store_of(run.run_dir))
        if told.is_new:
            told.take_id(self._create())
        self._id = told.id
        self._client.update_run(self._id, status="RUNNING")

    def _create(self) -> str:
        """Make the run, in the experiment of the project, and return its id."""
        run, client = self._run, self._client
        found = client.get_experiment_by_name(run.project)
        place = None if run.uri else (run.run_dir / FOLDER / "artefacts").absolute().as_uri()
        experiment = found.experiment_id if found else client.create_experiment(run.project, artifact_location=place)
        tags = {"job_type": run.job_type, **{f"tag.{tag}": "true" for tag in run.tags}}
        tags |= {"group": run.group} if run.group else {}
        return client.create_run(experiment, run_name=run.name, tags=tags).info.run_id

    def configure(self, config: Mapping[str, Any]) -> None:
        """Log the configuration as parameters with dotted keys; those that changed since are tags."""
        from mlflow.entities import Param

        known = self._client.get_run(self._id).data.params
        asked = {name: str(value)[:_LONGEST_PARAMETER] for name, value in flat(config)}
        fresh = [Param(name, value) for name, value in asked.items() if name not in known]
        for start in range(0, len(fresh), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=fresh[start : start + _PARAMETERS_AT_ONCE])
        for name, value in asked.items():
            if known.get(name, value) != value:
                self._client.set_tag(self._id, f"changed.{name}", value)

    def log(self, lines: Sequence[Line]) -> None:
        """Log figures."""
        self._log([(name, value, step or 0) for step, figures in lines for name, value in panels(figures).items()])

    def _log(self, figures: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value, step in figures]
        for start in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self._id, metrics[start : start + _METRICS_AT_ONCE])

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Add a row to the table of samples."""
        self._client.log_table(self._id, {"step": [step], "prompt": [prompt], "text": [text]}, SAMPLES)

    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Log numbers as metrics of the last step, and words as tags."""
        numbers = {name: float(value) for name, value in figures.items() if not isinstance(value, str)}
        self._log([(name, value, step) for name, value in in_summary(numbers).items()])
        for name, value in figures.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, name, value)

    def keep(self, artefact: Artefact) -> None:
        """Note where it lies as tags, and send its files where they are to be sent."""
        self._client.set_tag(self._id, f"artefact.{artefact.name}", artefact.place)
        if artefact.made_from:
            self._client.set_tag(self._id, f"artefact.{artefact.name}.made_from", artefact.made_from)
        path = artefact.path
        if not self._run.upload or artefact.is_input or path is None:
            return
        if path.is_dir():
            self._client.log_artifacts(self._id, str(path), artefact.name)
        else:
            self._client.log_artifact(self._id, str(path), artefact.name)

    def save(self) -> None:
        """Every call was written at once."""

    def finish(self, status: Status) -> None:
        """End the run."""
        self._client.set_terminated(self._id, _STATUS[status])
