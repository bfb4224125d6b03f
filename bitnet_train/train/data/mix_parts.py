"""The entries of `data.mix`, read and checked without anything heavy; `mix` says what a weight means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitnet_train.errors import ConfigError

_KEYS = ("path", "weight", "kind", "validation_path")


@dataclass(frozen=True)
class MixPart:
    """One data set of a mix. `kind` and `validation_path` None = as `data` says, and a share held out."""

    path: str
    weight: float = 1.0
    kind: str | None = None
    validation_path: str | None = None


def read_mix(entries: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> tuple[MixPart, ...]:
    """Return the data sets of `data.mix`; ConfigError names the entry and the key that cannot be read."""
    return tuple(_read_entry(f"data.mix[{number}]", entry, kinds) for number, entry in enumerate(entries))


def _read_entry(where: str, entry: Any, kinds: Sequence[str]) -> MixPart:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str) or not entry["path"]:
        raise ConfigError(f"`{where}={entry}` names no file or folder. Write {{path: FILE, weight: 1}}.")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise ConfigError(f"`{where}`: there is no key `{unknown[0]}`. Allowed: {', '.join(_KEYS)}.")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise ConfigError(f"`{where}`: `weight: {weight}` must be a finite number above 0.")
    if entry.get("kind") not in (None, *kinds):
        raise ConfigError(f"`{where}`: `kind: {entry['kind']}` is unknown. Allowed: {', '.join(kinds)}.")
    return MixPart(**{**entry, "weight": float(weight)})
