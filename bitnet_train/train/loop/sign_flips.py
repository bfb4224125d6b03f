"""How many codes are others than those that training began with: `flips`, a figure of the steps that are looked at.

A sample of each layer's codes is compared, as in `layer_watch`, and every code of it counts alike. Those of the start
are taken before a checkpoint is loaded, so a resumed run tells what the uninterrupted one would have told.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from bitnet_train.train.loop.layer_watch import Codes, sample_codes
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.spread import is_spread

FLIPS = "flips"


class SignFlips(Callback):
    """Add the share of codes that changed since the start to the figures of a step; it comes before they are written.

    every_steps: of validations, of checkpoints, 0 = none; the steps of either are measured, and the last.
    """

    def __init__(self, *every_steps: int) -> None:
        self.every_steps = [steps for steps in every_steps if steps > 0]
        self._start: Codes = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the codes of the converted model; Lightning calls this before it loads a checkpoint."""
        self._start = sample_codes(_module(pl_module).student)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare, where this step will be validated or saved."""
        module = _module(pl_module)
        is_due = module.step == module.max_steps or any(module.step % every == 0 for every in self.every_steps)
        if is_due and self._start and trainer.is_global_zero and not is_spread(module.student):
            module.metrics[FLIPS] = self.share(module)

    def share(self, module: BitLightningModule) -> float:
        """Return the share of the sampled codes that are others than at the start."""
        codes = sample_codes(module.student)
        changed = sum(int((code != self._start[name]).sum()) for name, code in codes.items())
        return changed / sum(code.numel() for code in codes.values())


def _module(module: LightningModule) -> BitLightningModule:
    assert isinstance(module, BitLightningModule)
    return module
