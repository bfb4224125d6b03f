"""How long a run is: steps, tokens or minutes are given, and the other two follow.

```
steps    max_steps, or those that read max_tokens (`row_lengths`), or floor(60 max_minutes / seconds a step)
```

Schedules need the last step before the first, so minutes become steps at the start, by timing: two micro-batches go
forward and backward and the optimiser steps twice at a learning rate of 0, the second of each counts. Weights and
random numbers are as before; the cost is at most that of two steps. Minutes are those of training steps: validations
and checkpoints come on top. A machine that is busier later takes longer; the steps stay.

The memory counts what is certain: float32 weights of student and teacher, gradients and two moments of what trains, the
values behind what trains rounded, and for one micro-batch the student's logits, their gradient and the teacher's logits
in float32. Activations inside the blocks come on top; they depend on the attention kernel.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitnet_train.model.rounded_table import stored_parameters
from bitnet_train.train.distil import micro_batches
from bitnet_train.train.module import BitLightningModule
from bitnet_train.train.optim import build_optimizer
from bitnet_train.train.rng import generator_states, restore_generators

FLOAT32_BYTES = 4
TIMED_STEPS = 2  # what timing costs at most
TIMING_SHARE = 0.03  # of a run, at most, where timing is for show only
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Estimate:
    """What a run will take. `step_s` is None where it was not measured."""

    max_steps: int
    tokens: int
    memory_bytes: int
    step_s: float | None = None

    @property
    def minutes(self) -> float | None:
        """Minutes of training steps."""
        return None if self.step_s is None else self.max_steps * self.step_s / 60

    def describe(self) -> str:
        """Return one line for people."""
        length = f"{self.max_steps:,} steps, at most {self.tokens:,} tokens"
        if self.step_s is not None:
            length += f", about {self.minutes:.2g} minutes ({self.step_s:.2g} s a step, measured)"
        return f"{length}; {self.memory_bytes / 1e9:.2f} GB and the activations of a micro-batch"


def steps_of_minutes(max_minutes: float, step_s: float) -> int:
    """Return the steps that fit into `max_minutes`, at least 1."""
    return max(1, math.floor(60 * max_minutes / step_s))


def is_cheap_to_time(max_steps: int) -> bool:
    """Whether timing costs at most `TIMING_SHARE` of a run of so many steps."""
    return max_steps * TIMING_SHARE >= TIMED_STEPS


def memory_bytes(module: BitLightningModule, micro_tokens: int) -> int:
    """Return the bytes of the second paragraph of the module docstring."""
    trainable = sum(p.numel() for p in module.student.parameters() if p.requires_grad)
    student = sum(p.numel() for p in module.student.parameters())
    masters = sum(p.numel() for p, _ in stored_parameters(module.student) if p.requires_grad) if module.rounded else 0
    teacher = sum(p.numel() for p in module.teacher.parameters()) if module.teacher is not None else 0
    embeddings: Any = module.student
    vocabulary = int(embeddings.get_output_embeddings().weight.shape[0])
    copies = 3 if module.teacher is not None else 2
    return FLOAT32_BYTES * (student + teacher + 3 * trainable + masters + copies * micro_tokens * vocabulary)


def time_step(module: BitLightningModule, batch: Batch, precision: str, accelerator: str) -> float:
    """Return the seconds of one optimiser step on the rows of `batch`; weights and random states stay as they are."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    states, was_training = generator_states(), module.student.training
    piece = {name: values.to(device) for name, values in next(micro_batches(batch, module.micro_rows)).items()}
    module.to(device)
    module.student.train()
    if module.teacher is not None:
        module.teacher.to(device).eval()
    optimizer = build_optimizer(module.student, replace(module.optim, lr=0.0), rounded=module.rounded)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            backward_s = _second_time(lambda: _backward(module, piece))
        step_s = _second_time(optimizer.step)
    finally:
        module.student.zero_grad(set_to_none=True)
        module.student.train(was_training)
        restore_generators(states)
    return backward_s * len(batch["input_ids"]) / len(piece["input_ids"]) + step_s


def _backward(module: BitLightningModule, piece: Batch) -> None:
    scale = 1 / piece["labels"].numel()
    module.total_loss(module.token_sums(piece, scale), scale).backward()


def _second_time(call: Any) -> float:
    call()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
