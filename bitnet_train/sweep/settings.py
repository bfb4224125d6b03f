"""Settings of sweeps: the section `sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import require_allowed, setting

Sampler = Literal["tpe", "grid", "random"]
Pruner = Literal["median", "none"]


@dataclass(frozen=True)
class SweepConfig:
    """Which trials a sweep makes, and when one ends early."""

    dir: str | None = setting(
        None, "folder of the sweep; null = run.root/RECIPE/sweep_TIME; one that is there goes on", path=True
    )
    trials: int | None = setting(
        None, "trials of all workers together; null = 20, of a grid all its points", at_least=1, at_most=10000
    )
    sampler: Sampler = setting("tpe", "what chooses values: TPE learns from the trials before, grid tries all points")
    pruner: Pruner = setting("median", "median = end a trial whose held-out figure is worse than that of most before")
    seed: int = setting(0, "seed of the sampler", at_least=0, at_most=2**31 - 1)
    most_failures: int = setting(3, "trials in a row that may fail; a worker ends with the last of them", at_least=1)

    def __post_init__(self) -> None:
        require_allowed(self, "sweep")
