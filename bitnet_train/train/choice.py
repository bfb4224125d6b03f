"""Pick a row of a table by the name a person typed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from bitnet_train.errors import ConfigError

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
    near = difflib.get_close_matches(name, list(table), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ConfigError(f"`{key}={name}` is not known.{hint} Allowed: {', '.join(table)}.")
