"""What a tracker is asked to do, whatever stands behind it: one class a tracker, and one around any Lightning logger.

A tracker does what it is told, at once, and raises what goes wrong: that it cannot end or delay a run is the business
of `guarded_tracker`, which calls it from one thread, in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.loggers import Logger

Figure = float | int | bool | str
Line = tuple[int | None, Mapping[str, float]]  # a step, and figures as the loop calls them
Status = Literal["success", "failed", "interrupted"]


@dataclass(frozen=True)
class Artefact:
    """A file or folder that a run read or wrote; `made_from` names the one it was made of.

    `place` is an absolute path or an address such as `hf://OWNER/NAME`. `name` tells it from the others of its run.
    """

    name: str
    kind: str
    place: str
    made_from: str | None = None
    is_input: bool = False
    facts: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file or folder, where it is one that is there."""
        path = Path(self.place)
        return path if path.is_absolute() and path.exists() else None


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run when it starts, or takes the run up again.

    `offline`: None = wandb decides. `uri`: where a tracker keeps its runs, None = in `run_dir`. `upload`: send files,
    not only where they lie. `rewound_to`: the step that the run has gone back to, which leaves a way that was tracked.
    """

    run_dir: Path
    name: str
    project: str = "bitnet-train"
    group: str | None = None
    job_type: str = "train"
    tags: tuple[str, ...] = ()
    offline: bool | None = None
    uri: str | None = None
    upload: bool = False
    rewound_to: int | None = None


class Tracker(ABC):
    """One tracker of one run, open until `finish`.

    `gathers_s`: lines are handed to it together, so many seconds' worth, where a line alone costs milliseconds.
    """

    gathers_s: ClassVar[float] = 0.0

    @abstractmethod
    def configure(self, config: Mapping[str, Any]) -> None:
        """Show the nested configuration, secrets taken out; again where the run is taken up under another."""

    @abstractmethod
    def log(self, lines: Sequence[Line]) -> None:
        """Log figures of one or more steps, in order."""

    @abstractmethod
    def sample(self, step: int, prompt: str, text: str) -> None:
        """Show what the model wrote on a prompt after a step."""

    @abstractmethod
    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Show what the run came to; `step` is the last one that was logged."""

    @abstractmethod
    def keep(self, artefact: Artefact) -> None:
        """Say where something lies that the run read or wrote."""

    @abstractmethod
    def save(self) -> None:
        """Have what was logged written."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """End the tracker's run, which may be taken up again."""


class LightningTracker(Tracker):
    """Any logger of Lightning, which knows a configuration and figures; these keep the names that the loop has."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def configure(self, config: Mapping[str, Any]) -> None:
        """Show the configuration."""
        self._logger.log_hyperparams(dict(config))

    def log(self, lines: Sequence[Line]) -> None:
        """Log figures."""
        for step, figures in lines:
            self._logger.log_metrics(dict(figures), step)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Nothing: loggers of Lightning have no common way to take texts."""

    def summarise(self, figures: Mapping[str, Figure], step: int) -> None:
        """Nothing: what a run came to is in its facts."""

    def keep(self, artefact: Artefact) -> None:
        """Nothing, as for texts."""

    def save(self) -> None:
        """Have what was logged written."""
        self._logger.save()

    def finish(self, status: Status) -> None:
        """End the logger's run."""
        self._logger.finalize("success" if status == "success" else "failed")
