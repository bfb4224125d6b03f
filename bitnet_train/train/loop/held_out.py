"""What the held-out figure decides: which checkpoint is the best one, and when a run may stop.

The figure is `val_ce`, nats per held-out token, the logarithm of the perplexity. A validation is an improvement when it
is below every one before. What is known so far is part of every checkpoint, so a resumed run decides as one that was
not interrupted would have.

    checkpoints/best.json     {"step": 80, "val_ce": 2.51, "val_perplexity": 12.3, ...}, replaced in one rename
    checkpoints/step-000080/  stays, however many come after it
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnet_train.errors import TrainingError
from bitnet_train.json_text import parse_json
from bitnet_train.train.loop.checkpoint_manifest import folder_name, verify
from bitnet_train.whole import write_whole

FIGURE = "val_ce"
POINTER = "best.json"
MAX_NATS = 700.0  # exp(709) is the largest that a float64 holds
_STATE = ("best", "best_step", "stale", "step")


@dataclass
class HeldOutWatch:
    """The best figure so far, and how many validations have not reached it; `patience` of them end a run."""

    keep_best: bool = False
    patience: int | None = None
    best: float = math.inf
    best_step: int | None = None
    stale: int = 0
    step: int | None = None  # of the last validation

    @property
    def is_on(self) -> bool:
        """Whether anything depends on the figure."""
        return self.keep_best or self.patience is not None

    @property
    def is_out_of_patience(self) -> bool:
        """Whether so many validations in a row were no improvement that the run ends."""
        return self.patience is not None and self.stale >= self.patience

    def observe(self, step: int, figure: float) -> bool:
        """Take in the figure of a validation after `step` steps; return whether it is an improvement."""
        improved = figure < self.best
        self.step, self.stale = step, 0 if improved else self.stale + 1
        if improved:
            self.best, self.best_step = figure, step
        return improved

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in _STATE}

    def take(self, state: Mapping[str, Any] | None) -> None:
        """Take up what a checkpoint kept; None, of a checkpoint of before, leaves this as it is."""
        for name, value in (state or {}).items():
            setattr(self, name, value)

    def take_up_best(self, directory: Path) -> Path | None:
        """Return the folder of the best checkpoint; where that should be kept and is not, forget the best.

        The pointer in `directory` says the same afterwards.
        """
        if not self.keep_best:
            return None
        folder = directory / folder_name(self.best_step) if self.best_step is not None else None
        if folder is not None and folder.is_dir():
            self._point(folder)
            return folder
        self.best, self.best_step = math.inf, None
        (directory / POINTER).unlink(missing_ok=True)
        return None

    def _point(self, folder: Path) -> None:
        """Make the pointer say what this watch knows: a run that was cut, or gone back from, may have left another."""
        pointer = folder.parent / POINTER
        if self.best_step is not None and (not pointer.is_file() or _pointed_step(pointer) != self.best_step):
            perplexity = math.exp(min(self.best, MAX_NATS))
            point_to_best(folder, self.best_step, {FIGURE: self.best, "val_perplexity": perplexity})


def _pointed_step(pointer: Path) -> int | None:
    try:
        return int(parse_json(pointer.read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def point_to_best(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Say beside the checkpoints which one is the best, and by what figures."""
    write_whole(folder.parent / POINTER, json.dumps({"step": step, **figures}) + "\n")


def find_best(directory: Path, say: Callable[[str], object]) -> tuple[Path, dict[str, Any]] | None:
    """Return the best checkpoint and its figures; None, having said why, where there is none or it is damaged."""
    try:
        figures = parse_json((directory / POINTER).read_text(encoding="utf-8"))
        folder = directory / folder_name(int(figures["step"]))
        verify(folder)
    except FileNotFoundError:
        say("`trainer.keep_best=true`, but no validation has named a best checkpoint yet: the newest one is taken.")
    except (OSError, ValueError, KeyError, TypeError, TrainingError) as error:
        say(f"The best checkpoint cannot be used, and the newest one is taken. {error}")
    else:
        return folder, figures
    return None
