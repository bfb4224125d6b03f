"""Before the first step: does this machine take far longer than the one a recipe's result was measured on, and why.

A bundled recipe has a result file that says how many tokens a second its training read. Where the estimate is `FAR`
times as slow, a person should hear it now, with what is known of the cause and what to set. Nothing is said of a recipe
without a result, of one that was given another model, or of a run that was given its minutes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bitnet_train.config import Config
from bitnet_train.config.layout import house
from bitnet_train.json_text import parse_json
from bitnet_train.run.result import RunFacts
from bitnet_train.train.loop.budget import Estimate, spoken
from bitnet_train.train.loop.machine import Arithmetic

FAR = 2.5  # times the measured run
BUSY = 1.5  # programs that want a core, for each core


@dataclass(frozen=True)
class Measured:
    """What a result file says of the training that it was measured with."""

    tokens_per_s: float
    machine: str


def warning(config: Config, estimate: Estimate, arithmetic: Arithmetic) -> str | None:
    """Return what to hear of a run that will take far longer than its recipe's result, else None."""
    measured = measured_run(config, house() / "recipes" / "results")
    if measured is None or estimate.step_s is None or config.trainer.max_minutes is not None:
        return None
    here_s, there_s = estimate.max_steps * estimate.step_s, estimate.tokens / measured.tokens_per_s
    if here_s < FAR * there_s:
        return None
    ways = causes(config, arithmetic, _busy())
    return (
        f"`{config.recipe}` was measured at {measured.tokens_per_s:,.0f} tokens/s ({measured.machine}), where this "
        f"would take {spoken(there_s)}; here it is about {spoken(here_s)}. {' '.join(ways)} "
        "For a shorter run set `trainer.max_minutes`, for a first look use `bitnet-train run RECIPE --quick`."
    )


def measured_run(config: Config, results: Path) -> Measured | None:
    """Return the measured speed of the recipe, None where there is none or it is of another model."""
    path = results / f"{config.recipe}.json"
    if not path.is_file():
        return None
    result = RunFacts.from_dict(parse_json(path.read_text(encoding="utf-8")), str(path))
    if Path(result.source).name != Path(config.model.source).name:
        return None
    assert result.frame is not None, "a result file is what a run wrote"
    return Measured(result.train.tokens / result.train.seconds, result.frame.machine)


def causes(config: Config, arithmetic: Arithmetic, busy: float | None) -> list[str]:
    """Return a sentence for each thing known to slow training here, with what to set where something can be set."""
    found, threads, cores = [], config.trainer.num_threads, (os.cpu_count() or 1) // config.trainer.devices
    if arithmetic.is_imitated:
        found.append("bf16 is imitated by this processor: set `trainer.precision=auto`.")
    if threads is not None and 2 * threads <= cores:
        found.append(f"{threads} of {cores} CPU threads compute: raise `trainer.num_threads`.")
    if busy is not None and busy > BUSY:
        found.append(f"Other programs are busy, {busy:.1f} on each CPU thread: let them end first.")
    return found or [f"This processor is slower ({arithmetic.describe()})."]


def _busy() -> float | None:
    """Return the programs that want to run, for each CPU thread, or None where the system does not say."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else None
