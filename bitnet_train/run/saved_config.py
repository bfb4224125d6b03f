"""The one writer of a run's config.yaml: whole, sealed, and for its owner alone where it holds a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bitnet_train.config.seal import sealed
from bitnet_train.train.trackers.redaction import redact
from bitnet_train.whole import write_whole


def write_saved(path: Path, config_yaml: str) -> None:
    """Write a configuration as a run keeps it. Raises DiskError."""
    with _private_where_secret(config_yaml):
        write_whole(path, sealed(config_yaml))


@contextmanager
def _private_where_secret(config_yaml: str) -> Iterator[None]:
    """Have a configuration that holds a token or a key written for its owner alone: a run needs it to go on."""
    values = yaml.safe_load(config_yaml)
    before = os.umask(0o077) if redact(values) != values else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)
