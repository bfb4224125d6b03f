"""Configuration: the settings of all rooms, named choices in `configs/`, stories in `recipes/`, composed by Hydra.

    schema   the rooms' settings, assembled            compose  files and words -> one checked `Config`
    target   the command line's first word             rules    what values are allowed together
    words    `key=value`, `group=choice`               draft    the schema as OmegaConf carries it

Importing this package imports nothing heavy; `from bitnet_train.config.compose import compose` brings in Hydra.
"""

from __future__ import annotations

from bitnet_train.config.objects import build_object
from bitnet_train.config.schema import Config, changed, named_run

__all__ = ["Config", "build_object", "changed", "named_run"]
