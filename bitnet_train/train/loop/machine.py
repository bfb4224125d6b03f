"""What the machine decides for a run, by a short timing instead of by name: arithmetic and CPU threads.

```
precision   bf16 where one product, forward and backward under autocast, is clearly faster so than in fp32, else fp32
threads     what torch takes; one a core where that is clearly faster than one a hardware thread; a share of the cores
```

Instruction sets do not tell: without bf16 instructions a CPU imitates them and takes tens of times as long, and those
that have them differ by a factor. The timing costs a second at most; a run that is continued keeps what it began with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch.nn.functional import linear

from bitnet_train.train.choice import choose
from bitnet_train.train.loop.settings import AUTO

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # Lightning's names
CLEARLY = 1.1  # so many times faster, or the plainer choice stays: more exact, or torch's own
_TOKENS, _SIZE, _REPEATS = 256, 576, 5  # a layer of a small model; more would take seconds where bf16 is imitated

Result = TypeVar("Result")
Clock = Callable[[], float]


@dataclass(frozen=True)
class Arithmetic:
    """The precision that a run computes in, and what decided: the milliseconds of a product in either."""

    precision: str
    fp32_ms: float
    bf16_ms: float

    @property
    def is_imitated(self) -> bool:
        """Whether bf16 was chosen although it is slower here."""
        return self.precision == "bf16" and self.bf16_ms > self.fp32_ms

    def describe(self) -> str:
        """Return a phrase for people: the precision and how the other compares."""
        if self.bf16_ms > self.fp32_ms:
            return f"{self.precision}; bf16 takes {self.bf16_ms / self.fp32_ms:.1f} times as long as fp32 here"
        return f"{self.precision}; fp32 takes {self.fp32_ms / self.bf16_ms:.1f} times as long as bf16 here"

    def warning(self) -> str | None:
        """Return what a run should hear that asks for bf16 where it is slower, else None."""
        if not self.is_imitated:
            return None
        return (
            f"`trainer.precision=bf16`: this machine only imitates bf16, which takes {self.bf16_ms / self.fp32_ms:.0f} "
            "times as long as fp32. Set `trainer.precision=auto`."
        )


def device_of(accelerator: str) -> torch.device:
    """Return where a run of this `trainer.accelerator` computes here: CUDA, or the CPU."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def arithmetic(precision: str, accelerator: str = AUTO) -> Arithmetic:
    """Return the precision to train in on this machine; `auto` is decided by timing, once a process.

    Raises ConfigError for a name that is neither `auto` nor in `PRECISIONS`.
    """
    choose(dict.fromkeys((AUTO, *PRECISIONS)), precision, "trainer.precision")
    fp32_ms, bf16_ms = time_products(device_of(accelerator).type)
    faster = "bf16" if fp32_ms > CLEARLY * bf16_ms else "fp32"
    return Arithmetic(faster if precision == AUTO else precision, fp32_ms, bf16_ms)


@cache
def time_products(device: str) -> tuple[float, float]:
    """Return the milliseconds of one product, forward and backward, in fp32 and in bf16.

    On a CPU those that one thread computes, so that other processes do not disturb the comparison.
    """
    if device == "cpu":
        return with_threads(1, lambda: _both_ms(device, time.thread_time))
    return _both_ms(device, time.perf_counter)


def thread_count(processes: int = 1) -> int:
    """Return the CPU threads to train with: torch's own number, or one a core where two hinder each other.

    Of several processes on this machine each has its share of the cores, whatever a launcher gave it: torchrun gives
    every one a single thread.
    """
    default, cores = torch.get_num_threads(), physical_cores()
    if processes > 1:
        return max(1, (cores or os.cpu_count() or 1) // processes)
    if cores is None or cores >= default:
        return default
    ms = {n: with_threads(n, lambda: _product_ms("cpu", nullcontext(), time.perf_counter)) for n in (default, cores)}
    return cores if ms[default] > CLEARLY * ms[cores] else default


def physical_cores() -> int | None:
    """Return how many cores this process may use, each counted once, or None where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    topology = Path("/sys/devices/system/cpu")
    files = [topology / f"cpu{cpu}/topology/thread_siblings_list" for cpu in os.sched_getaffinity(0)]
    try:
        return len({file.read_text() for file in files})
    except OSError:
        return None


def _both_ms(device: str, clock: Clock) -> tuple[float, float]:
    bf16 = torch.autocast(device, torch.bfloat16)
    return _product_ms(device, nullcontext(), clock), _product_ms(device, bf16, clock)


def _product_ms(device: str, arithmetic: AbstractContextManager[object], clock: Clock) -> float:
    x = torch.ones(_TOKENS, _SIZE, device=device, requires_grad=True)
    weight = torch.ones(_SIZE, _SIZE, device=device, requires_grad=True)

    def elapsed() -> float:
        start = clock()
        with arithmetic:
            y = linear(x, weight)
        torch.autograd.grad(y, (x, weight), torch.ones_like(y))
        if device == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (clock() - start)

    elapsed()  # the first finds memory and kernels
    return min(elapsed() for _ in range(_REPEATS))


def with_threads(count: int, call: Callable[[], Result]) -> Result:
    """Return what `call` returns, computed by `count` CPU threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return call()
    finally:
        torch.set_num_threads(before)
