"""Where figures go: always `metrics.jsonl` in the run directory, and one tracker by name.

| name        | writes to                | needs                                                                    |
|-------------|--------------------------|--------------------------------------------------------------------------|
| none        | nothing else             |                                                                          |
| csv         | csv/version_N/           |                                                                          |
| tensorboard | tensorboard/             | extra `tensorboard`                                                      |
| wandb       | wandb/                   | offline unless there is a key and the server answers, or the mode says so |

Every tracker gets a redacted configuration, and none can end or delay a run (`guarded_tracker`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from bitnet_train.errors import ConfigError
from bitnet_train.train.choice import choose
from bitnet_train.train.trackers.guarded_tracker import GuardedTracker, Say, say_on_stderr
from bitnet_train.train.trackers.redaction import redact
from bitnet_train.train.trackers.wandb_tracker import WANDB_MODES, wandb_tracker
from bitnet_train.whole import append_line

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Tracker:
    """One row: how it is built, the package it needs besides ours, and how that is installed."""

    make: Callable[[Path, str, str, bool | None, Say], Logger]
    package: str | None = None
    install: str = ""


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
    run_dir: Path,
    config: Mapping[str, Any],
    *,
    project: str = "bitnet-train",
    name: str | None = None,
    mode: str = "auto",
    say: Say = say_on_stderr,
) -> list[Logger]:
    """Return the tracker called `kind` as a list of none or one, having logged the redacted `config` to it.

    It is guarded: what fails from here on is said once, and the run goes on.

    Raises
    ------
    ConfigError
        For an unknown kind or mode, or when the tracker's package is not installed (names the extra).
    """
    tracker = choose(TRACKERS, kind, "logger.kind")
    offline = choose(WANDB_MODES, mode, "logger.mode")
    run_dir.mkdir(parents=True, exist_ok=True)
    if tracker is None:
        return []
    if tracker.package is not None:
        require_package(tracker.package, kind, tracker.install)
    return [guarded(kind, lambda: tracker.make(run_dir, project, name or run_dir.name, offline, say), config, say)]


def guarded(kind: str, make: Callable[[], Logger], config: Mapping[str, Any], say: Say = say_on_stderr) -> Logger:
    """Return a started, guarded tracker that was shown the redacted `config`; ConfigError if `make` raises it soon."""
    logger = GuardedTracker(kind, make, say)
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


def _csv(run_dir: Path, project: str, name: str, offline: bool | None, say: Say) -> Logger:
    return CSVLogger(run_dir, name="csv")


def _tensorboard(run_dir: Path, project: str, name: str, offline: bool | None, say: Say) -> Logger:
    return TensorBoardLogger(run_dir, name="tensorboard", version="")


TRACKERS: Mapping[str, Tracker | None] = MappingProxyType(
    {
        "none": None,
        "csv": Tracker(_csv),
        "tensorboard": Tracker(_tensorboard, "tensorboard", "pip install 'bitnet-train[tensorboard]'"),
        "wandb": Tracker(wandb_tracker, "wandb", "pip install wandb"),
    }
)
