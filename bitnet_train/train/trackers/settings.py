"""Settings of where figures go: the section `logger`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class LoggerConfig:
    """Where figures go besides `metrics.jsonl`, which is always written."""

    kind: Literal["wandb", "tensorboard", "mlflow", "trackio", "csv", "none", "custom"] = setting("none", "tracker")
    project: str = setting("bitnet-train", "project name in the tracker; of mlflow the experiment")
    name: str | None = setting(None, "run name in the tracker; null = the recipe and the name of the run directory")
    group: str | None = setting(None, "what the runs of the tracker are grouped by; null = the recipe")
    tags: tuple[str, ...] = setting((), "tags beside those of the recipe: model, scheme, adapter")
    mode: Literal["auto", "online", "offline"] = setting("auto", "wandb: auto = online if a key is set, else offline")
    uri: str | None = setting(
        None, "mlflow: tracking URI; trackio: folder of its databases; null = inside the run directory"
    )
    upload: bool = setting(False, "wandb, mlflow: send the packed model and exports too, not only where they lie")
    custom: dict[str, Any] = setting({}, "kind `custom`: a Lightning logger as `_target_` and its arguments", path=True)

    def __post_init__(self) -> None:
        require_allowed(self, "logger")
