"""What comes of a step that is not finite, and of a loss that climbs: left out, told, or the end of the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from bitnet_train.model.config_fields import vocab_size
from bitnet_train.train.loop.guard import DivergenceWatch, check_finite
from bitnet_train.train.loop.layer_watch import LayerWatch, first_non_finite, has_bad_weight
from bitnet_train.train.loop.odd_steps import OddSteps
from bitnet_train.train.loop.schedules import ScheduleConfig, warmup_steps
from bitnet_train.train.losses.settings import LossConfig


class _Watched(Protocol):
    """What a module has whose steps are watched."""

    student: nn.Module
    loss: LossConfig
    schedule: ScheduleConfig
    step: int
    max_steps: int
    watch: DivergenceWatch
    odd_steps: OddSteps
    layers: LayerWatch
    good_checkpoint: Path | None

    @property
    def trainer(self) -> Any: ...


def leave_out(module: _Watched, total: float, grad_norm: float) -> None:
    """Allow a step that is not finite to be left out and tell of it; or raise TrainingError."""
    if has_bad_weight(module.student) or not module.odd_steps.may_leave_out():
        where = first_non_finite(module.student) or ""
        check_finite(total, grad_norm, module.step, module.good_checkpoint, where)
    what = f"the loss is {total}" if not math.isfinite(total) else f"the gradient norm is {grad_norm}"
    if module.trainer.is_global_zero:
        module.odd_steps.tell(module.step, f"{what}, so it is skipped and no weight changes")


def watch(module: _Watched, means: dict[str, float], active: dict[str, float], hardness: float | None) -> None:
    """Compare a step's means, of which the `active` ones make the loss, with those before; raise where they climb.

    Raises
    ------
    TrainingError
        When the loss has climbed for long enough (`guard`).
    """
    is_warming = module.step <= warmup_steps(module.max_steps, module.schedule)
    module.watch.observe(means, active, hardness, _uniform_guess(module) if is_warming else None)
    if module.watch.rising == 1 and module.trainer.is_global_zero:
        module.odd_steps.tell(module.step - 1, module.watch.describe())
    if module.watch.rising and not is_warming:
        is_last = module.watch.rising == module.watch.steps
        layers = module.layers.describe(module.student) if is_last else ""
        module.watch.check(module.step, module.good_checkpoint, layers)


def _uniform_guess(module: _Watched) -> float:
    """Return what a uniform guess costs, nats per token; the divergences are scaled by their temperature."""
    return math.log(vocab_size(module.student)) * max(1.0, module.loss.temperature) ** 2
