"""Where figures go: always `metrics.jsonl` in the run directory, and one tracker by name.

| name        | writes to                | needs                                                                    |
|-------------|--------------------------|--------------------------------------------------------------------------|
| none        | nothing else             |                                                                          |
| csv         | csv/version_N/           |                                                                          |
| tensorboard | tensorboard/             | extra `tensorboard`                                                      |
| wandb       | wandb/                   | offline unless a key is set, `wandb login` was run, or the mode says so  |

Every tracker gets a redacted configuration. wandb's caches, staging area and logs are kept inside the run directory,
and it records neither the command line, the repository's address, nor the machine: all three have held secrets.
"""

from __future__ import annotations

import json
import math
import netrc
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from bitnet_train.errors import ConfigError
from bitnet_train.train.choice import choose
from bitnet_train.train.redaction import redact

METRICS_FILE = "metrics.jsonl"
WANDB_MODES = {"auto": None, "online": False, "offline": True}  # value: offline


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
        """Append one line; it is on its way to the disk when this returns."""
        row = {"step": step} | {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

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
) -> list[Logger]:
    """Return the tracker called `kind` as a list of none or one, having logged the redacted `config` to it.

    Raises
    ------
    ConfigError
        For an unknown kind or mode, or when the tracker's package is not installed (names the extra).
    """
    build = choose(TRACKERS, kind, "logger.kind")
    offline = choose(WANDB_MODES, mode, "logger.mode")
    run_dir.mkdir(parents=True, exist_ok=True)
    loggers = build(run_dir, project, name or run_dir.name, offline)
    for logger in loggers:
        logger.log_hyperparams(redact(dict(config)))
    return loggers


def require_package(package: str, kind: str, install: str) -> None:
    """Raise ConfigError with the `install` command when the package of tracker `kind` cannot be imported."""
    if find_spec(package) is None:
        raise ConfigError(
            f"`logger.kind={kind}` needs the package {package}, which is not installed. "
            f"Run `{install}`, or choose `logger.kind=csv`."
        )


def wandb_has_key() -> bool:
    """Tell whether wandb would find a key: in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _no_tracker(run_dir: Path, project: str, name: str, offline: bool | None) -> list[Logger]:
    return []


def _csv(run_dir: Path, project: str, name: str, offline: bool | None) -> list[Logger]:
    return [CSVLogger(run_dir, name="csv")]


def _tensorboard(run_dir: Path, project: str, name: str, offline: bool | None) -> list[Logger]:
    require_package("tensorboard", "tensorboard", "pip install 'bitnet-train[tensorboard]'")
    return [TensorBoardLogger(run_dir, name="tensorboard", version="")]


def _wandb(run_dir: Path, project: str, name: str, offline: bool | None) -> list[Logger]:
    require_package("wandb", "wandb", "pip install wandb")
    import wandb

    _keep_wandb_inside(run_dir / "wandb")
    offline = offline if offline is not None else os.environ.get("WANDB_MODE") == "offline" or not wandb_has_key()
    settings = wandb.Settings(
        mode="offline" if offline else "online",
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
    )
    return [WandbLogger(save_dir=run_dir, name=name, project=project, offline=offline, settings=settings)]


def _keep_wandb_inside(folder: Path) -> None:
    """Point every folder that wandb would make in the user's home into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(folder.absolute())


TRACKERS: Mapping[str, Callable[[Path, str, str, bool | None], list[Logger]]] = MappingProxyType(
    {"none": _no_tracker, "csv": _csv, "tensorboard": _tensorboard, "wandb": _wandb}
)
