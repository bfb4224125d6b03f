"""Settings of where figures go: the section `logger`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class LoggerConfig:
    """Where figures go besides `metrics.jsonl`, which is always written."""

    kind: Literal["wandb", "tensorboard", "csv", "none", "custom"] = setting("none", "tracker")
    project: str = setting("bitnet-train", "project name in the tracker")
    name: str | None = setting(None, "run name in the tracker; null = name of the run directory")
    mode: Literal["auto", "online", "offline"] = setting("auto", "wandb: auto = online if a key is set, else offline")
    custom: dict[str, Any] = setting({}, "kind `custom`: a Lightning logger as `_target_` and its arguments", path=True)

    def __post_init__(self) -> None:
        require_allowed(self, "logger")
