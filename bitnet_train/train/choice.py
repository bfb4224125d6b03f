"""Pick a row of a table by the name a person typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from bitnet_train.errors import ConfigError
from bitnet_train.settings import did_you_mean

Row = TypeVar("Row")


def choose(table: Mapping[str, Row], name: str, key: str) -> Row:
    """Return `table[name]`.

    Raises
    ------
    ConfigError
        When the table has no such row: names the configuration key, the nearest row and all rows.
    """
    if name in table:
        return table[name]
    raise ConfigError(f"`{key}={name}` is not known.{did_you_mean(name, table)} Allowed: {', '.join(table)}.")
