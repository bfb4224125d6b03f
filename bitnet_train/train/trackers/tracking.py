"""Where figures go: always `metrics.jsonl` in the run directory, and one tracker by name.

| name        | writes to                         | needs                                       |
|-------------|-----------------------------------|---------------------------------------------|
| none        | nothing else                      |                                             |
| csv         | csv/version_N/                    |                                             |
| tensorboard | tensorboard/                      | extra `tensorboard`                         |
| wandb       | wandb/                            | nothing; a key and a server to go online    |
| mlflow      | mlflow/mlflow.db, or `logger.uri` | extra `mlflow`                              |
| trackio     | trackio/, or `logger.uri`         | extra `trackio`                             |

Every tracker gets a redacted configuration, and none can end or delay a run (`guarded_tracker`). All but csv know a run
again (`told`): it is one run over resumes, and the verbs after training add to it. A tracker's package is imported when
the tracker is started, and not before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger

from bitnet_train.errors import ConfigError
from bitnet_train.train.choice import choose
from bitnet_train.train.trackers.guarded_tracker import GuardedTracker, Say, say_on_stderr
from bitnet_train.train.trackers.redaction import redact
from bitnet_train.train.trackers.told import Told, earlier_lines
from bitnet_train.train.trackers.tracker import LightningTracker, TrackedRun, Tracker
from bitnet_train.train.trackers.wandb_tracker import wandb_tracker
from bitnet_train.whole import append_line

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Kind:
    """One row: how a tracker is made, the packages it needs besides ours, and how those are installed.

    `knows_runs`: a run can be taken up again. `rewinds`: it can be told that a run went back to an earlier step.
    """

    make: Callable[[TrackedRun, Told, Say], Tracker]
    packages: tuple[str, ...] = ()
    install: str = ""
    knows_runs: bool = True
    rewinds: bool = False


class JsonlLogger(Logger):
    """One JSON object a line: `step`, then figures. Numbers that JSON lacks (NaN, infinity) are written as null."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.name

    @property
    def version(self) -> str:
        """Return nothing: a run has one file."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line; it is on its way to the disk when this returns. Raises DiskError."""
        row = {"step": step} | {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        append_line(self.path, json.dumps(row))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the run directory has the whole configuration in `config.yaml`."""


def build_loggers(
    kind: str,
    run: TrackedRun,
    config: Mapping[str, Any],
    *,
    reached: int = 0,
    is_over: bool = False,
    say: Say = say_on_stderr,
) -> list[GuardedTracker]:
    """Return the tracker called `kind` as a list of none or one, started, with the redacted `config` shown to it.

    It is guarded: what fails from here on is said once, and the run goes on. `reached` is the step that the run stands
    at: what the tracker has missed up to there it is told from metrics.jsonl. Where training `is_over`, a tracker that
    cannot take a run up again is left out.

    Raises
    ------
    ConfigError
        For an unknown kind, or when the tracker's package is not installed (names the extra).
    """
    chosen = choose(TRACKERS, kind, "logger.kind")
    run.run_dir.mkdir(parents=True, exist_ok=True)
    if chosen is None or (is_over and not chosen.knows_runs):
        return []
    check_tracker(kind)
    told = Told(run.run_dir, kind, run.uri)
    run = _rewound(run, told, chosen, say)
    known = told if chosen.knows_runs else None
    logger = GuardedTracker(kind, partial(chosen.make, run, told, say), say, known)
    logger.start()
    if told.is_new or not is_over:
        logger.log_hyperparams(redact(dict(config)))
    if known is not None:
        logger.catch_up(partial(earlier_lines, run.run_dir / METRICS_FILE, reached))
    return [logger]


def _rewound(run: TrackedRun, told: Told, kind: Kind, say: Say) -> TrackedRun:
    """Return the run as its tracker has to take it up where it went back by name: as another, or with a mark."""
    back = run.rewound_to
    if back is None or told.is_new or told.last_step <= back:
        return replace(run, rewound_to=None)
    if kind.rewinds:
        told.go_back_to(back)
        return run
    told.start_anew()
    if back == 0:
        return replace(run, rewound_to=None)
    say(f"the run goes back to step {back}, so it is tracked as another run from there.")
    return replace(run, name=f"{run.name} again from step {back}", rewound_to=None)


def guarded(
    kind: str, make: Callable[[], Logger], config: Mapping[str, Any], say: Say = say_on_stderr
) -> GuardedTracker:
    """Return a logger of Lightning, started, guarded, shown the redacted `config`.

    ConfigError if `make` raises it soon.
    """
    logger = GuardedTracker(kind, lambda: LightningTracker(make()), say)
    logger.start()
    logger.log_hyperparams(redact(dict(config)))
    return logger


def require_package(package: str, kind: str, install: str) -> None:
    """Raise ConfigError with the `install` command when the package of tracker `kind` cannot be imported."""
    if find_spec(package) is None:
        raise ConfigError(
            f"`logger.kind={kind}` needs the package {package}, which is not installed. "
            f"Run `{install}`, or choose `logger.kind=csv`."
        )


def check_tracker(kind: str) -> None:
    """Raise ConfigError, with the command that installs it, where a package of a tracker is missing."""
    chosen = TRACKERS.get(kind)
    if chosen is not None:
        for package in chosen.packages:
            require_package(package, kind, chosen.install)


def _csv(run: TrackedRun, told: Told, say: Say) -> Tracker:
    return LightningTracker(CSVLogger(run.run_dir, name="csv"))


def _tensorboard(run: TrackedRun, told: Told, say: Say) -> Tracker:
    from bitnet_train.train.trackers.tensorboard_tracker import TensorBoardTracker

    return TensorBoardTracker(run, told)


def _mlflow(run: TrackedRun, told: Told, say: Say) -> Tracker:
    from bitnet_train.train.trackers.mlflow_tracker import MLflowTracker

    return MLflowTracker(run, told)


def _trackio(run: TrackedRun, told: Told, say: Say) -> Tracker:
    from bitnet_train.train.trackers.trackio_tracker import TrackioTracker

    return TrackioTracker(run, told)


TRACKERS: Mapping[str, Kind | None] = MappingProxyType(
    {
        "none": None,
        "csv": Kind(_csv, knows_runs=False),
        "tensorboard": Kind(_tensorboard, ("tensorboard",), "pip install 'bitnet-train[tensorboard]'", rewinds=True),
        "wandb": Kind(wandb_tracker, ("wandb",), "pip install wandb"),
        "mlflow": Kind(_mlflow, ("mlflow", "sqlalchemy", "alembic"), "pip install 'bitnet-train[mlflow]'"),
        "trackio": Kind(_trackio, ("trackio",), "pip install 'bitnet-train[trackio]'"),
    }
)
