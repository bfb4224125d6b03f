"""Before the first step: how long the run is, what learning rate that asks for, and what both will cost.

`trainer.max_tokens`, `trainer.max_epochs` and `trainer.max_minutes` become steps here, `optimizer.lr=auto` a number.
All are written to `facts/budget.json`, and a run that is continued takes its steps from there: a second timing, or text
that has grown, would find other steps, and the schedules would not go on where they were.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import Asked, BudgetFacts
from bitnet_train.run.result import Spent
from bitnet_train.run.starting_point import spent_before
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.row_lengths import RowLengths
from bitnet_train.train.loop import budget
from bitnet_train.train.loop.budget import Estimate, StepTime
from bitnet_train.train.loop.machine import device_of
from bitnet_train.train.loop.memory import memory
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.optim import automatic_lr
from bitnet_train.train.loop.settings import OptimConfig


@dataclass(frozen=True)
class Length:
    """How many steps a run makes, how many of them read pieces of rows, at what rates, and what that will cost."""

    steps: int
    short_steps: int
    optim: OptimConfig
    estimate: Estimate

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return float(self.optim.lr)


def settle(config: Config, module: BitLightningModule, data: BitDataModule, directory: RunDirectory | None) -> Length:
    """Return the length of a run and keep it in `directory`; `module` and `data` stay as they are.

    Raises
    ------
    ConfigError
        For `optimizer.lr=auto` where no latent trains.
    """
    kept = _kept(config, directory)
    timed = _step_time(config, module, data, kept)
    spent = spent_before(config, directory)
    steps = kept.estimate.max_steps if kept is not None else _steps(config, data, timed, spent)
    short_steps = row_lengths(config).short_steps(steps)
    optim = automatic_lr(module.student, module.optim, steps)
    certain = _certain_bytes(config, module)
    seconds = {} if timed is None else asdict(timed)
    epochs = data.epochs(steps, short_steps)
    estimate = Estimate(steps, row_lengths(config).tokens(steps), certain, **seconds, epochs=epochs)
    length = Length(steps, short_steps, optim, estimate)
    if directory is not None and (kept is None or kept.lr != length.rate):
        directory.keep(BudgetFacts(asked=_asked(config), lr=length.rate, estimate=estimate))
    return length


def untimed(config: Config, module: BitLightningModule, data: BitDataModule) -> Estimate | None:
    """Return what is known before a step is timed, nothing of it kept; None where minutes decide the steps."""
    if config.trainer.max_minutes is not None:
        return None
    lengths, steps = row_lengths(config), _steps(config, data, None, Spent())
    certain = _certain_bytes(config, module)
    return Estimate(steps, lengths.tokens(steps), certain, epochs=data.epochs(steps, lengths.short_steps(steps)))


def _certain_bytes(config: Config, module: BitLightningModule) -> int:
    tokens = config.trainer.micro_rows * config.data.context_tokens
    return memory(module, tokens, device_of(config.trainer.accelerator)).certain


def row_lengths(config: Config) -> RowLengths:
    """Return how many tokens the steps of a run read."""
    trainer = config.trainer
    return RowLengths(
        trainer.batch_rows, config.data.context_tokens, trainer.short_row_tokens, trainer.short_row_fraction
    )


def _kept(config: Config, directory: RunDirectory | None) -> BudgetFacts | None:
    """Return what an earlier start of this run settled, where it is continued and nothing else is asked for."""
    if directory is None or config.trainer.resume == "never":
        return None
    facts = directory.kept(BudgetFacts)
    return facts if facts is not None and facts.asked == _asked(config) else None


def _asked(config: Config) -> Asked:
    """Return what decides the steps; `max_steps` itself only where nothing stands above it."""
    trainer = config.trainer
    by_steps = trainer.max_tokens is None and trainer.max_minutes is None and trainer.max_epochs is None
    short = trainer.short_row_tokens
    return Asked(
        max_steps=trainer.max_steps if by_steps else None,
        max_tokens=trainer.max_tokens,
        max_minutes=trainer.max_minutes,
        step_tokens=trainer.batch_rows * config.data.context_tokens,
        max_epochs=trainer.max_epochs,
        short_rows=None if short is None else (short, trainer.short_row_fraction),
    )


def _step_time(
    config: Config, module: BitLightningModule, data: BitDataModule, kept: BudgetFacts | None
) -> StepTime | None:
    """Return the time of a step: as kept, or measured where minutes are asked for or the timing is cheap, else None.

    Where the first steps read pieces it is the mean over the run.
    """
    trainer = config.trainer
    if kept is not None:
        return _kept_time(kept.estimate)
    pieces, untimed = -(-trainer.batch_rows // trainer.micro_rows), Spent()
    is_wanted = trainer.max_minutes or config.dry_run
    if not (is_wanted or budget.is_cheap_to_time(_steps(config, data, None, untimed), pieces)):
        return None
    whole = budget.time_step(module, data.first_batch(), trainer.precision, trainer.accelerator)
    if trainer.short_row_tokens is None:
        return whole
    short = budget.time_step(module, data.first_batch(short=True), trainer.precision, trainer.accelerator)
    return whole.mixed(short, trainer.short_row_fraction)


def _kept_time(estimate: Estimate) -> StepTime | None:
    step_s, fastest_s, slowest_s = estimate.step_s, estimate.fastest_s, estimate.slowest_s
    if step_s is None:
        return None
    if fastest_s is None or slowest_s is None:  # older runs have neither
        return StepTime(step_s, step_s, step_s)
    return StepTime(step_s, fastest_s, slowest_s)


def _steps(config: Config, data: BitDataModule, timed: StepTime | None, spent: Spent) -> int:
    trainer = config.trainer
    _require_left("max_minutes", trainer.max_minutes, spent.seconds / 60)
    _require_left("max_tokens", trainer.max_tokens, spent.tokens)
    if trainer.max_minutes is not None:
        assert timed is not None
        return budget.steps_of_minutes(trainer.max_minutes - spent.seconds / 60, timed.step_s)
    if trainer.max_tokens is not None:
        return row_lengths(config).steps(trainer.max_tokens - spent.tokens)
    if trainer.max_epochs is not None:
        return data.steps_of_epochs(trainer.max_epochs, row_lengths(config))
    return trainer.max_steps


def _require_left(key: str, given: float | None, spent: float) -> None:
    if given is not None and spent >= given:
        raise ConfigError(
            f"`trainer.{key}={given}` is used up before training end to end: `init` and `blockwise` took {spent:.3g}. "
            f"Raise it, or lower `blockwise.steps`."
        )
