"""Numbers of a config.json that nobody vouches for: each read with its range, the key named where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_train.errors import FormatError

LARGEST_SIZE = (1 << 31) - 1  # of any size or count: the kernels count in 32 bits


class NotNative(FormatError):
    """A sound folder that the native runtime does not compute; the message is the reason in words."""


def size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number from 1; NotNative when it is neither stated nor has a default."""
    value = config.get(name)
    if value is None:
        value = default
    if value is None:
        raise NotNative(f"config.json does not state `{name}`")
    if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
        raise FormatError(f"config.json: `{name}` must be a whole number from 1 to 2^31 - 1, not {str(value)[:40]}.")
    return value


def positive(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return a number above 0; NotNative when it is neither stated nor has a default."""
    value = values.get(name)
    if value is None:
        value = default
    if value is None:
        raise NotNative(f"config.json does not state `{name}`")
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise FormatError(f"config.json: `{name}` must be a finite number above 0, not {str(value)[:40]}.")
    return float(value)


def list_of(config: Mapping[str, Any], name: str, length: int) -> list[Any] | None:
    """Return a list with an entry for each layer, None when it is not stated."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != length:
        raise FormatError(f"config.json: `{name}` must be a list of {length} entries, one for each layer.")
    return value
