"""The one place that builds a Lightning Trainer: `fit` trains, survives, and says where things are.

A run is one stretch of `max_steps` optimiser steps. On a resume the Trainer is told to make the steps that are left,
and the data module to start at that batch; all else follows from the step counter in the checkpoint (see `module`).
Nothing is written outside `run_dir`.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.loop.callbacks import Figures, Saving, Validating
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import ABANDONED, later_than, read_manifest, step_of
from bitnet_train.train.loop.diagnostics import Telemetry
from bitnet_train.train.loop.guard import DivergenceWatch
from bitnet_train.train.loop.held_out import HeldOutWatch
from bitnet_train.train.loop.launch import cluster_environment
from bitnet_train.train.loop.machine import PRECISIONS, arithmetic
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.odd_steps import ODD_STEPS_FILE, OddSteps, RowsOfStep
from bitnet_train.train.loop.progress import ProgressShown
from bitnet_train.train.loop.resume_choice import resume_from
from bitnet_train.train.loop.settings import DebugConfig, TrainerConfig
from bitnet_train.train.loop.sharded import ShardedStrategy
from bitnet_train.train.loop.signals import SignalWatcher
from bitnet_train.train.trackers.tracking import METRICS_FILE, JsonlLogger

_LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")


@dataclass(frozen=True)
class FitResult:
    """What a run did, counted over resumes; steps that were lost after a checkpoint count nowhere."""

    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    metrics: dict[str, float]
    checkpoint: Path
    best_step: int | None = None  # of the lowest held-out figure
    best_val_ce: float | None = None
    is_stopped_early: bool = False


def fit(
    module: BitLightningModule,
    data: LightningDataModule,
    config: TrainerConfig,
    run_dir: Path,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    measuring: Sequence[Callback] = (),
    debug: DebugConfig | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train `module` up to `config.max_steps` and leave a checkpoint in `run_dir/checkpoints`.

    `loggers` are written to besides `run_dir/metrics.jsonl`; further `callbacks` run last, and `measuring` ones
    first: what they add to the module's `metrics` is written with those of the step. Every checkpoint says that it was
    trained under `settings` (plain JSON). `quiet` shows no progress.

    Raises
    ------
    ConfigError
        When `resume` is `never` and the run directory has checkpoints, or names no checkpoint.
    TrainingError
        For a non-finite loss, a damaged or foreign checkpoint, no checkpoint left that can be used, a full or
        read-only disk.
    Interrupted
        After SIGTERM or SIGINT, with a checkpoint saved; a SystemExit with code 143 or 130.
    """
    if config.max_steps != module.max_steps:
        raise ConfigError(f"`trainer.max_steps` is {config.max_steps} for `fit` but {module.max_steps} for the module.")
    checkpoint = resume_from(config.resume, run_dir / "checkpoints", say=_warn)
    done = _steps_done(checkpoint, config)
    module.last_checkpoint = module.good_checkpoint = checkpoint
    module.watch = DivergenceWatch(config.divergence_nats, config.divergence_steps)
    module.odd_steps = OddSteps(config.skip_steps, run_dir / ODD_STEPS_FILE, _rows_of_step(data))
    module.held_out = HeldOutWatch(config.keep_best, config.patience)
    module.is_guest = False
    abandoned = _abandoned(config.resume, checkpoint, run_dir / "checkpoints")
    with SignalWatcher() as watcher, _quiet_lightning(), _nothing_old_searched():
        saving = Saving(run_dir / "checkpoints", config.save_every_steps, watcher, abandoned)
        shown = ProgressShown(quiet, epochs=_epochs(data))
        validating = Validating(data, config.validate_every_steps, saving)
        own = [*measuring, Figures(config.log_every_steps, _epochs(data)), shown, saving, validating]
        own += _telemetry(debug or DebugConfig(), run_dir) if config.strategy != "fsdp" else []
        trainer = _trainer(config, run_dir, done, settings, [*own, *callbacks], loggers)
        with _told_of_lost_processes(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if checkpoint else None)
    return _result(module, config)


def _abandoned(resume: str, checkpoint: Path | None, directory: Path) -> list[Path]:
    """Return the checkpoints of the way that a run leaves, having said so, where it goes back to one by name."""
    if resume == "auto" or checkpoint is None:
        return []
    step = step_of(checkpoint)
    later = later_than(directory, step)
    if later:
        names = ", ".join(folder.name for folder in later)
        _warn(
            f"The run goes back to step {step}. What it saved later, {names}, is set aside in {directory / ABANDONED} "
            "when it saves again."
        )
    return later


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _rows_of_step(data: LightningDataModule) -> RowsOfStep:
    return data.rows_of_step if isinstance(data, BitDataModule) else lambda step: []


def _epochs(data: LightningDataModule) -> Callable[[int], float] | None:
    return data.epochs if isinstance(data, BitDataModule) else None


def _telemetry(debug: DebugConfig, run_dir: Path) -> list[Callback]:
    return [Telemetry(run_dir, debug.every_steps)] if Telemetry.wanted(debug.enabled) else []


def _trainer(
    config: TrainerConfig,
    run_dir: Path,
    done: int,
    settings: Mapping[str, Any] | None,
    callbacks: list[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """Return a Trainer stripped of all that we do ourselves."""
    precision: Any = PRECISIONS[arithmetic(config.precision, config.accelerator).precision]
    return Trainer(
        max_steps=max(0, config.max_steps - done),
        max_epochs=-1,
        precision=precision,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=_strategy(config),
        logger=[JsonlLogger(run_dir / METRICS_FILE), *loggers],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(config.keep_last, settings), cluster_environment(config.devices, config.num_nodes)],
        default_root_dir=run_dir,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
    )


def _strategy(config: TrainerConfig) -> Any:
    return ShardedStrategy(config.devices * config.num_nodes) if config.strategy == "fsdp" else config.strategy


def _steps_done(checkpoint: Path | None, config: TrainerConfig) -> int:
    done = read_manifest(checkpoint)["step"] if checkpoint else 0
    if done > config.max_steps:
        raise ConfigError(
            f"`trainer.max_steps={config.max_steps}`, but {checkpoint} has {done} steps already. "
            "Raise it, or resume from an earlier checkpoint (`trainer.resume=PATH`)."
        )
    return done


def _result(module: BitLightningModule, config: TrainerConfig) -> FitResult:
    held_out = module.held_out
    is_whole = module.step == config.max_steps or held_out.is_out_of_patience
    if not is_whole or module.last_checkpoint is None:
        raise TrainingError(
            f"Training stopped at step {module.step} of {config.max_steps}: the data ran out of batches. "
            "The data module must yield a batch for every step."
        )
    seconds, metrics = module.seconds, {**module.metrics, **module.validation_metrics}
    return FitResult(
        module.step,
        module.tokens,
        seconds,
        module.tokens / seconds,
        metrics,
        module.last_checkpoint,
        best_step=held_out.best_step,
        best_val_ce=held_out.best if held_out.best_step is not None else None,
        is_stopped_early=module.step < config.max_steps,
    )


@contextmanager
def _told_of_lost_processes(trainer: Trainer) -> Iterator[None]:
    """Say that another process of the run ended, which the library that connects them calls a closed connection."""
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or "by peer" not in str(error):
            raise
        raise TrainingError(
            f"Another process of the run has ended, so this one of {trainer.world_size} cannot go on. What that one "
            "said is above, if it said anything. Continue from the newest checkpoint with `trainer.resume=auto`."
        ) from error


@contextmanager
def _nothing_old_searched() -> Iterator[None]:
    """Let the garbage collector pass over what there is now, models and libraries: it searched them every few steps.

    What a caller froze stays frozen, and nothing more is.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's device list, tips and advice on loaders; its errors still show."""
    levels = {name: logging.getLogger(name).level for name in _LIGHTNING_LOGGERS}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
