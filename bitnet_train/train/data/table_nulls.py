"""Nulls that tables fill up with: Arrow gives every object of a list the keys of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row without the null keys of objects inside its fields; fields and list items that are null stay."""
    return {name: _pruned(value) for name, value in row.items()}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    return [_pruned(item) for item in value] if isinstance(value, list) else value
