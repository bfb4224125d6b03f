"""How the learning rate and the hardness of the quantiser move over a run.

Pure functions of `(step, max_steps)`, so a resumed run needs no scheduler state. With u = progress from the end of the
warm-up (0) to the last step (1) and f = `final_lr_fraction`:

```
cosine    f + (1 - f) (1 + cos(pi u)) / 2          linear   1 - (1 - f) u
constant  1                                        wsd      1, then linear to f over the last `decay_fraction`
warm-up   (step + 1) / warmup_steps, at most 1, times the above
```

Hardness, with s = step / (soft_fraction * max_steps):

```
hard      never touched: the quantiser's own default
tanh      t = tanh_start * (tanh_end / tanh_start)^s, then tanh_end     (progressive tanh, arXiv 2508.06974)
lambda    min(s, 1)                                                     (quantisation warm-up of the HF 1.58-bit blog)
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bitnet_train.errors import ConfigError
from bitnet_train.train.choice import choose


@dataclass(frozen=True)
class ScheduleConfig:
    """Names and shapes of the two schedules; fractions are shares of `max_steps`."""

    lr: str = "cosine"
    warmup_fraction: float = 0.03
    final_lr_fraction: float = 0.0
    decay_fraction: float = 0.2
    hardness: str = "hard"
    soft_fraction: float = 0.4
    tanh_start: float = 0.3
    tanh_end: float = 100.0

    def __post_init__(self) -> None:
        choose(LR_SCHEDULES, self.lr, "schedule.lr")
        choose(HARDNESS_SCHEDULES, self.hardness, "schedule.hardness")
        for key in ("warmup_fraction", "final_lr_fraction", "decay_fraction", "soft_fraction"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"`schedule.{key}={getattr(self, key)}` must lie between 0 and 1.")
        if not 0.0 < self.tanh_start <= self.tanh_end:
            raise ConfigError(
                f"`schedule.tanh_start={self.tanh_start}` must be above 0 and at most `tanh_end={self.tanh_end}`."
            )


def _cosine(progress: float, config: ScheduleConfig) -> float:
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2


def _linear(progress: float, config: ScheduleConfig) -> float:
    return 1 - (1 - config.final_lr_fraction) * progress


def _constant(progress: float, config: ScheduleConfig) -> float:
    return 1.0


def _wsd(progress: float, config: ScheduleConfig) -> float:
    if config.decay_fraction == 0.0:
        return 1.0
    return _linear(max(0.0, 1 - (1 - progress) / config.decay_fraction), config)


def _hard(softness: float, config: ScheduleConfig) -> float | None:
    return None


def _tanh(softness: float, config: ScheduleConfig) -> float | None:
    return config.tanh_start * (config.tanh_end / config.tanh_start) ** softness if softness < 1 else config.tanh_end


def _lambda(softness: float, config: ScheduleConfig) -> float | None:
    return softness


LR_SCHEDULES: Mapping[str, Callable[[float, ScheduleConfig], float]] = MappingProxyType(
    {"cosine": _cosine, "linear": _linear, "constant": _constant, "wsd": _wsd}
)
HARDNESS_SCHEDULES: Mapping[str, Callable[[float, ScheduleConfig], float | None]] = MappingProxyType(
    {"hard": _hard, "tanh": _tanh, "lambda": _lambda}
)


def warmup_steps(max_steps: int, config: ScheduleConfig) -> int:
    """Return how many steps warm up."""
    return round(config.warmup_fraction * max_steps)


def lr_factor(step: int, max_steps: int, config: ScheduleConfig) -> float:
    """Return the factor on the peak learning rate for the optimiser step `step` in 0..max_steps-1, between 0 and 1."""
    warming = warmup_steps(max_steps, config)
    warm = min(1.0, (step + 1) / max(1, warming))
    progress = max(0, step - warming) / max(1, max_steps - warming)
    return warm * choose(LR_SCHEDULES, config.lr, "schedule.lr")(min(1.0, progress), config)


def hardness(step: int, max_steps: int, config: ScheduleConfig) -> float | None:
    """Return what the estimator reads at `step`; None means: leave the quantiser at its default, hard."""
    soft_steps = config.soft_fraction * max_steps
    softness = min(1.0, step / soft_steps) if soft_steps > 0 else 1.0
    return choose(HARDNESS_SCHEDULES, config.hardness, "schedule.hardness")(softness, config)
