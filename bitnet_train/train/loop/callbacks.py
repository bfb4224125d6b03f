"""What happens between optimiser steps: save, stop on a signal, validate, write figures.

Order at the end of a step, given by `fit`: figures, saving (and leaving, when a signal came), validation, telemetry.
Saving comes before validation so that a kill during a long validation loses nothing.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from bitnet_train.errors import BitnetTrainError, ConfigError, DiskError
from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO, set_aside
from bitnet_train.train.loop.checkpoint_manifest import folder_name
from bitnet_train.train.loop.held_out import FIGURE, point_to_best
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.signals import Interrupted, SignalWatcher


class Saving(Callback):
    """Save every `every_steps` steps, at the end, and on a signal, after which `Interrupted` is raised.

    `abandoned` are checkpoints of another way on: they are set aside before the first one of this way is written, so
    that whatever happens then, the newest of the run is one of this way.
    """

    def __init__(
        self, directory: Path, every_steps: int, watcher: SignalWatcher, abandoned: Sequence[Path] = ()
    ) -> None:
        self.directory, self.every_steps, self.watcher = directory, every_steps, watcher
        self.abandoned = tuple(abandoned)
        self.saved_step = -1
        self._is_between_steps = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, in place of Lightning's own handlers; what was resumed from here is saved already."""
        self.watcher.arm()
        resumed = _module(pl_module).last_checkpoint
        is_ours = resumed is not None and resumed.resolve().parent == self.directory.resolve()
        self.saved_step = _module(pl_module).step if is_ours else -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here on a step is half made."""
        self._is_between_steps = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when due."""
        module = _module(pl_module)
        self._is_between_steps = True
        self.leave_if_asked(trainer, module)
        if module.step % self.every_steps == 0:
            self.save(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step."""
        self.save(trainer, _module(pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the steps so far where what failed lies between two, such as reading the next rows.

        Not where other processes would have to save too: they may be anywhere.
        """
        module = _module(pl_module)
        is_lost = module.step != self.saved_step and not isinstance(exception, DiskError)
        if is_lost and self._is_between_steps and trainer.world_size == 1:
            self._is_between_steps = False
            try:
                self.save(trainer, module)
            except BitnetTrainError as error:
                exception.add_note(f"Nothing was saved: {error}")
            else:
                exception.add_note(f"Saved {module.last_checkpoint}; continue with `trainer.resume=auto`.")

    def leave_if_asked(self, trainer: Trainer, module: BitLightningModule) -> None:
        """Save and raise `Interrupted` when any process has received a signal."""
        signum = self.watcher.agreed(trainer)
        if signum:
            self.save(trainer, module)
            raise Interrupted(signum, module.step, module.last_checkpoint)

    def save(self, trainer: Trainer, module: BitLightningModule) -> None:
        """Write a checkpoint of the finished steps, once per step."""
        if module.step == self.saved_step:
            return
        folder = self.directory / folder_name(module.step)
        io = trainer.strategy.checkpoint_io
        if isinstance(io, AtomicCheckpointIO):
            good = None if module.is_calm else module.good_checkpoint
            io.protected = frozenset(folder for folder in (good, module.best_checkpoint) if folder is not None)
        if trainer.is_global_zero:
            set_aside(self.abandoned)
        self.abandoned = ()
        trainer.save_checkpoint(folder)
        module.last_checkpoint, self.saved_step = folder, module.step
        if module.is_calm:
            module.good_checkpoint = folder
            module.layers.look(module.student)


class Validating(Callback):
    """Validate every `every_steps` finished steps, counted over resumes, and at the end; 0 switches it off.

    What depends on the figure (`held_out`) is decided here: the best checkpoint is saved, whatever the interval of
    saving, and a run that is out of patience ends. A checkpoint is older than the validation of its step, so that is
    made up for when such a run is resumed.
    """

    def __init__(self, data: LightningDataModule, every_steps: int, saving: Saving) -> None:
        self.data, self.every_steps, self.saving = data, every_steps, saving

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up where the checkpoint left off; ConfigError where a figure is needed and no row is held out."""
        module = _module(pl_module)
        if not module.held_out.is_on:
            return
        if not self.every_steps or len(self.data.val_dataloader()) == 0:
            raise ConfigError(
                "`trainer.keep_best` and `trainer.patience` go by the held-out rows, and there are none, or they are "
                "not looked at. Set `data.validation_fraction` and `trainer.validate_every_steps` above 0."
            )
        module.best_checkpoint = module.held_out.take_up_best(self.saving.directory)
        self._make_up(trainer, module)
        trainer.should_stop = module.held_out.is_out_of_patience

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate when due, and always at the last step."""
        module = _module(pl_module)
        if self._is_due(module):
            self.validate(trainer, module)
            trainer.should_stop = trainer.should_stop or module.held_out.is_out_of_patience

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the last validation of a run that has no step left to make."""
        module = _module(pl_module)
        if module.held_out.is_on:
            module.best_checkpoint = module.best_checkpoint or module.held_out.take_up_best(self.saving.directory)
            self._make_up(trainer, module)

    def _is_due(self, module: BitLightningModule) -> bool:
        return self.every_steps > 0 and (module.step % self.every_steps == 0 or module.step == module.max_steps)

    def _make_up(self, trainer: Trainer, module: BitLightningModule) -> None:
        if module.step > 0 and self._is_due(module) and module.held_out.step != module.step:
            self.validate(trainer, module)

    @torch.no_grad()
    def validate(self, trainer: Trainer, module: BitLightningModule) -> None:
        """Run the held-out rows through the student in evaluation mode and log the figures."""
        module.student.eval()
        module.on_validation_epoch_start()
        num_batches = 0
        for num_batches, batch in enumerate(self.data.val_dataloader(), start=1):
            with trainer.precision_plugin.val_step_context(), on_kernels():
                module.validation_step(trainer.strategy.batch_to_device(batch), num_batches - 1)
            self.saving.leave_if_asked(trainer, module)
        module.student.train()
        if num_batches == 0:
            self._give_up()
            return
        module.on_validation_epoch_end()
        log(trainer, module.validation_metrics, module.step)
        improved = module.held_out.observe(module.step, module.validation_metrics[FIGURE])
        if improved and module.held_out.keep_best:
            self._keep(trainer, module)

    def _keep(self, trainer: Trainer, module: BitLightningModule) -> None:
        """Save this step, which is the best; the best of before stays until this one is whole and pointed to."""
        self.saving.save(trainer, module)
        assert module.last_checkpoint is not None
        if trainer.is_global_zero:
            point_to_best(module.last_checkpoint, module.step, module.validation_metrics)
        module.best_checkpoint = module.last_checkpoint

    def _give_up(self) -> None:
        self.every_steps = 0
        warnings.warn(
            "There are no held-out rows, so nothing is validated. Set `data.validation_fraction` above 0, "
            "or `trainer.validate_every_steps=0`.",
            stacklevel=2,
        )


class Figures(Callback):
    """Write the figures of every `every_steps`-th step to all loggers, with the speed since the previous one.

    `epochs` gives the passes over the data that so many steps make, where that is known.
    """

    def __init__(self, every_steps: int = 1, epochs: Callable[[int], float] | None = None) -> None:
        self.every_steps, self.epochs = every_steps, epochs
        self._tokens, self._since = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._tokens, self._since = _module(pl_module).tokens, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add `tokens_per_s` to the module's metrics and log them."""
        module = _module(pl_module)
        if module.step % self.every_steps and module.step != module.max_steps:
            return
        now = time.perf_counter()
        module.metrics["tokens_per_s"] = (module.tokens - self._tokens) / max(now - self._since, 1e-9)
        self._tokens, self._since = module.tokens, now
        if self.epochs is not None:
            module.metrics["epoch"] = self.epochs(module.step)
        log(trainer, module.metrics, module.step)


def log(trainer: Trainer, metrics: dict[str, float], step: int) -> None:
    """Hand figures to every logger under our own step count, which survives a resume."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        logger.log_metrics(metrics, step)
        logger.save()


def _module(module: LightningModule) -> BitLightningModule:
    assert isinstance(module, BitLightningModule)
    return module
