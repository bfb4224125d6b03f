"""Have something written as training goes, a report, for at most a hundredth of its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.moments import is_looked_at

SHARE = 0.01


class Reporting(Callback):
    """Call `write` at the start, and after validations and checkpoints.

    Not again, though, before a hundred times what it took has passed.
    """

    def __init__(self, write: Callable[[], object]) -> None:
        self.write = write
        self._not_before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is."""
        self._write(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write after a validation or a checkpoint."""
        assert isinstance(pl_module, BitLightningModule)
        if is_looked_at(pl_module) and time.monotonic() >= self._not_before:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        start = time.monotonic()
        self.write()
        end = time.monotonic()
        self._not_before = end + (end - start) / SHARE
