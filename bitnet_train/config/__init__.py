"""Configuration: one typed schema, named choices in `configs/`, stories in `recipes/`, composed by Hydra.

    schema   every key, its default, its meaning       compose  files and words -> one checked `Config`
    target   the command line's first word             rules    what values are allowed together
    words    `key=value`, `group=choice`               objects  `Config` -> a lower floor's dataclass

Importing this package imports nothing heavy; `from bitnet_train.config.compose import compose` brings in Hydra.
"""

from __future__ import annotations

from bitnet_train.config.objects import build, build_object
from bitnet_train.config.schema import Config

__all__ = ["Config", "build", "build_object"]
