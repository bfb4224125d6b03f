"""When a run in training is worth a look: what it has just validated or saved."""

from __future__ import annotations

from bitnet_train.train.loop.checkpoint_manifest import folder_name
from bitnet_train.train.loop.module import BitLightningModule


def is_looked_at(module: BitLightningModule) -> bool:
    """Whether the step that ended was validated or saved; a run that never validates is looked at where it saves."""
    saved = module.last_checkpoint
    return module.held_out.step == module.step or (saved is not None and saved.name == folder_name(module.step))
