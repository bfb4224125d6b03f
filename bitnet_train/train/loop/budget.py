"""How long a run is: steps, tokens, epochs or minutes are given, and the others follow.

```
steps    max_steps, or those that read max_tokens (`row_lengths`) or max_epochs (`epochs`), or
         floor(60 max_minutes / seconds a step)
```

Schedules need the last step before the first, so minutes become steps at the start, by timing: a micro-batch goes
forward and backward and the optimiser steps at a learning rate of 0, once to warm up and `REPEATS` times for the clock.
Weights and random numbers are as before. The median decides, the fastest and the slowest are the range that is shown.
Minutes are those of training steps: validations and checkpoints come on top. A machine that is busier later takes
longer; the steps stay.

The memory is what is certain (`memory.Memory.certain`) in float32; activations come on top, which `--dry-run`
counts.
"""

from __future__ import annotations

import math
import time
from dataclasses import astuple, dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bitnet_train.progress import track
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.optim import build_optimizer
from bitnet_train.train.loop.rng import generator_states, restore_generators
from bitnet_train.train.losses.composition import micro_batches

REPEATS = 4  # that are timed, after one that is not
TIMING_SHARE = 0.03  # of a run, at most, where timing is for show only
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step: the median of several, the fastest and the slowest."""

    step_s: float
    fastest_s: float
    slowest_s: float

    def mixed(self, other: StepTime, share: float) -> StepTime:
        """Return the mean over a run of which `share` are steps of the `other` kind."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return StepTime(*((1 - share) * own + share * its for own, its in pairs))


@dataclass(frozen=True)
class Estimate:
    """What a run will take. The seconds are None where no step was timed."""

    max_steps: int
    tokens: int
    memory_bytes: int
    step_s: float | None = None
    fastest_s: float | None = None
    slowest_s: float | None = None
    epochs: float | None = None

    @property
    def minutes(self) -> float | None:
        """Minutes of training steps."""
        return None if self.step_s is None else self.max_steps * self.step_s / 60

    def describe(self) -> str:
        """Return one line for people."""
        length = f"{self.max_steps:,} steps, at most {self.tokens:,} tokens"
        if self.epochs is not None:
            length += f", {self.epochs:.3g} epochs"
        if self.step_s is not None:
            length += f", {self._time()} ({self.step_s:.2g} s a step, timed)"
        return f"{length}; {self.memory_bytes / 1e9:.2f} GB and the activations of a micro-batch"

    def _time(self) -> str:
        ends = [
            spoken(self.max_steps * (seconds or self.step_s or 0.0)) for seconds in (self.fastest_s, self.slowest_s)
        ]
        return f"about {ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def spoken(seconds: float) -> str:
    """Return a duration for people: `40 s`, `8 min`, `1 h 50 min`, `3 days 4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def steps_of_minutes(max_minutes: float, step_s: float) -> int:
    """Return the steps that fit into `max_minutes`, at least 1."""
    return max(1, math.floor(60 * max_minutes / step_s))


def is_cheap_to_time(max_steps: int, micro_batches_of_step: int = 1) -> bool:
    """Whether timing micro-batches costs at most `TIMING_SHARE` of a run of so many steps."""
    return max_steps * micro_batches_of_step * TIMING_SHARE >= 1 + REPEATS


def time_step(module: BitLightningModule, batch: Batch, precision: str, accelerator: str) -> StepTime:
    """Return the seconds of an optimiser step on the rows of `batch`; weights and random states stay as they are."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    states, was_training = generator_states(), module.student.training
    piece = {name: values.to(device) for name, values in next(micro_batches(batch, module.micro_rows)).items()}
    module.to(device)
    module.student.train()
    if module.teacher is not None:
        module.teacher.to(device).eval()
    optimizer = build_optimizer(module.student, replace(module.optim, lr=1.0), rounded=module.rounded)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # a step that takes its time and moves nothing; `lr=auto` is not known yet
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            backward_s = _timed(lambda: _backward(module, piece))
        update_s = _timed(optimizer.step)
    finally:
        module.student.zero_grad(set_to_none=True)
        module.student.train(was_training)
        restore_generators(states)
    pieces = len(batch["input_ids"]) / len(piece["input_ids"])
    steps = sorted(pieces * backward + update for backward, update in zip(backward_s, update_s, strict=True))
    return StepTime(median(steps), steps[0], steps[-1])


def _backward(module: BitLightningModule, piece: Batch) -> None:
    scale = 1 / piece["labels"].numel()
    module.total_loss(module.token_sums(piece, scale), scale).backward()


def _timed(call: Any) -> list[float]:
    """Return the seconds of `REPEATS` calls, after one that finds memory and kernels."""
    seconds = [_seconds(call) for _ in track(range(1 + REPEATS), "Timing a step", 1 + REPEATS)]
    return seconds[1:]


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
