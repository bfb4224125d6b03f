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
from bitnet_train.settings import require_allowed, setting
from bitnet_train.train.choice import choose


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


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate and the hardness of the quantiser move."""

    lr: str = setting("cosine", "learning rate after warm-up", choices=LR_SCHEDULES)
    warmup_fraction: float = setting(0.03, "share of the steps that warm up", at_least=0, at_most=1)
    final_lr_fraction: float = setting(
        0.0, "learning rate of the last step, as a share of the peak", at_least=0, at_most=1
    )
    decay_fraction: float = setting(0.2, "wsd: share of the steps that decay", at_least=0, at_most=1)
    hardness: str = setting("hard", "how the quantiser hardens", choices=HARDNESS_SCHEDULES)
    soft_fraction: float = setting(0.4, "share of the steps with a soft quantiser", at_least=0, at_most=1)
    tanh_start: float = setting(0.3, "tanh: first steepness", above=0)
    tanh_end: float = setting(100.0, "tanh: last steepness; 100 and above is the hard quantiser", above=0)

    def __post_init__(self) -> None:
        require_allowed(self, "schedule")
        if self.tanh_start > self.tanh_end:
            raise ConfigError(f"`schedule.tanh_start={self.tanh_start}` must be at most `tanh_end={self.tanh_end}`.")


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
