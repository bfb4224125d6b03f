"""The one writer of a run's config.yaml: whole, sealed, and for its owner alone where it holds a secret."""

from __future__ import annotations

from pathlib import Path

import yaml

from bitnet_train.config.seal import sealed
from bitnet_train.run.private import private_where_secret
from bitnet_train.whole import write_whole


def write_saved(path: Path, config_yaml: str) -> None:
    """Write a configuration as a run keeps it. Raises DiskError."""
    with private_where_secret(yaml.safe_load(config_yaml)):
        write_whole(path, sealed(config_yaml))
