"""Before the first step: how long the run is, what learning rate that asks for, and what both will cost.

`trainer.max_tokens` and `trainer.max_minutes` become steps here, `optimizer.lr=auto` a number. Both are written to
`facts/budget.json`, and a run that is continued takes its steps from there: a second timing would find other steps, and
the schedules would not go on where they were.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError
from bitnet_train.run_directory import RunDirectory
from bitnet_train.starting_point import Spent, spent_before
from bitnet_train.train import budget
from bitnet_train.train.budget import Estimate
from bitnet_train.train.data import BitDataModule
from bitnet_train.train.module import BitLightningModule
from bitnet_train.train.optim import automatic_lr

STAGE = "budget"


def settle(
    config: Config, module: BitLightningModule, data: BitDataModule, directory: RunDirectory | None
) -> tuple[Estimate, float]:
    """Fix steps and learning rate in `config` and `module`, and keep them in `directory`; return (estimate, peak rate).

    Raises
    ------
    ConfigError
        For `optimizer.lr=auto` where no latent trains.
    """
    kept = _kept(config, directory)
    step_s = _step_seconds(config, module, data, kept)
    spent = spent_before(config, directory)
    steps = int(kept["max_steps"]) if kept is not None else _steps(config, step_s, spent)
    config.trainer.max_steps = module.max_steps = steps
    module.optim = automatic_lr(module.student, module.optim, steps)
    row_tokens = config.data.context_tokens
    memory = budget.memory_bytes(module, config.trainer.micro_rows * row_tokens)
    estimate = Estimate(steps, steps * config.trainer.batch_rows * row_tokens, memory, step_s)
    rate = float(module.optim.lr)
    if directory is not None and kept is None:
        directory.write_facts(STAGE, {"asked": _asked(config), "lr": rate, **asdict(estimate)})
    return estimate, rate


def _kept(config: Config, directory: RunDirectory | None) -> dict[str, Any] | None:
    """Return what an earlier start of this run settled, where it is continued and nothing else is asked for."""
    if directory is None or config.trainer.resume == "never":
        return None
    facts = directory.facts(STAGE)
    return facts if facts is not None and facts["asked"] == _asked(config) else None


def _asked(config: Config) -> dict[str, Any]:
    """Return what decides the steps; `max_steps` itself only where nothing stands above it."""
    trainer = config.trainer
    by_steps = trainer.max_tokens is None and trainer.max_minutes is None
    return {
        "max_steps": trainer.max_steps if by_steps else None,
        "max_tokens": trainer.max_tokens,
        "max_minutes": trainer.max_minutes,
        "step_tokens": trainer.batch_rows * config.data.context_tokens,
    }


def _step_seconds(
    config: Config, module: BitLightningModule, data: BitDataModule, kept: dict[str, Any] | None
) -> float | None:
    """Return the seconds of a step: as kept, or timed where minutes are asked for or the timing is cheap, else None."""
    if kept is not None:
        return kept["step_s"]
    by_minutes = config.trainer.max_minutes is not None
    if by_minutes or config.dry_run or budget.is_cheap_to_time(_steps(config, None, Spent())):
        return budget.time_step(module, data.first_batch(), config.trainer.precision, config.trainer.accelerator)
    return None


def _steps(config: Config, step_s: float | None, spent: Spent) -> int:
    trainer = config.trainer
    _require_left("max_minutes", trainer.max_minutes, spent.seconds / 60)
    _require_left("max_tokens", trainer.max_tokens, spent.tokens)
    if trainer.max_minutes is not None:
        assert step_s is not None
        return budget.steps_of_minutes(trainer.max_minutes - spent.seconds / 60, step_s)
    if trainer.max_tokens is not None:
        return budget.steps_of_tokens(trainer.max_tokens - spent.tokens, trainer.batch_rows, config.data.context_tokens)
    return trainer.max_steps


def _require_left(key: str, given: float | None, spent: float) -> None:
    if given is not None and spent >= given:
        raise ConfigError(
            f"`trainer.{key}={given}` is used up before training end to end: `init` and `blockwise` took {spent:.3g}. "
            f"Raise it, or lower `blockwise.steps`."
        )
