"""What an older run did where its saved configuration does not say: a newer default must not change a run that exists.

A run saves every key, so one that is not there had not been invented, and the run did what `OLDER` says. Recipes and
command lines get the newer default. A fingerprint of settings leaves such keys out where they have the older value, and
is the one that the older version made.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

OLDER: Mapping[str, Any] = MappingProxyType({"weight.tables": "exact", "data.packing": "never"})
"""Dotted key -> what runs did before there was one."""


def as_it_ran(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved configuration of a run with the keys that it is too old to have."""
    content = dict(saved)
    for name, value in OLDER.items():
        section, _, key = name.partition(".")
        if isinstance(content.get(section), Mapping):
            content[section] = {key: value, **content[section]}
    return content


def without_older(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by section, without the keys that say what an older run did anyway."""
    return {
        section: {key: value for key, value in keys.items() if OLDER.get(f"{section}.{key}", _UNKNOWN) != value}
        if isinstance(keys, Mapping)
        else keys
        for section, keys in settings.items()
    }


_UNKNOWN = object()
