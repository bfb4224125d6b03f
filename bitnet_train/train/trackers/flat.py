"""A nested configuration as dotted keys, for trackers that have no nested ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested mappings by its dotted key; a list is one value."""
    for name, value in config.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{key}.")
        else:
            yield key, value
