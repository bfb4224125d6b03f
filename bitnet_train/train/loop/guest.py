"""A Trainer of the user's own: when it ends, and the figures it shows."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer

from bitnet_train.errors import ConfigError


def steps_of(trainer: Trainer) -> int:
    """Return after how many steps a Trainer ends.

    Raises
    ------
    ConfigError
        When it does not say.
    """
    steps = trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        raise ConfigError(
            "The schedules need to know where training ends. Give `Trainer(max_steps=...)`, or "
            "`BitLightningModule(max_steps=...)`."
        )
    return int(steps)


def show(module: LightningModule, figures: dict[str, float], in_bar: str) -> None:
    """Hand figures to the loggers of the module's Trainer; the one called `in_bar` stands in its bar too."""
    module.log_dict({name: value for name, value in figures.items() if name != in_bar})
    module.log(in_bar, figures[in_bar], prog_bar=True)
