"""Did you mean: the keys of the schema, and the nearest of them to a word someone typed."""

from __future__ import annotations

import difflib
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from bitnet_train.config.draft import Draft
from bitnet_train.config.foreign import foreign_hint
from bitnet_train.config.older import moved
from bitnet_train.config.schema import CALL_KEYS
from bitnet_train.settings import did_you_mean


@cache
def known_keys() -> dict[str, Field[Any]]:
    """Return every dotted key of the schema that a file may set, with its field, in the schema's order."""
    return {name: field for name, field in _keys(Draft, "").items() if name not in CALL_KEYS}


@cache
def sections() -> frozenset[str]:
    """Return the dotted names that hold keys instead of a value."""
    return frozenset(parent for name in known_keys() for parent in _parents(name))


def _keys(kind: type[Any], prefix: str) -> dict[str, Field[Any]]:
    hints = get_type_hints(kind)
    found: dict[str, Field[Any]] = {}
    for field in fields(kind):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        found |= _keys(hint, f"{name}.") if is_dataclass(hint) and isinstance(hint, type) else {name: field}
    return found


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def nearest_key(given: str) -> str:
    """Return ` Did you mean ...?` for a wrong dotted key, looking at the last part alone as well as at the whole."""
    if (now := moved(given)) != "":
        return now
    keys = list(known_keys())
    group, _, leaf = given.rpartition(".")
    same_leaf = [name for name in keys if name.rpartition(".")[2] == leaf]
    same_group = [name for name in keys if group and name.startswith(f"{group}.")]
    if same_leaf:
        return f" Did you mean `{'` or `'.join(same_leaf)}`?"
    hint = foreign_hint(given) or did_you_mean(given, same_group) or did_you_mean(given, keys)
    return hint or _nearest_leaf(leaf, keys)


def _nearest_leaf(leaf: str, keys: list[str]) -> str:
    by_leaf = {name.rpartition(".")[2]: name for name in reversed(keys)}
    nearest = difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.6)
    return f" Did you mean `{by_leaf[nearest[0]]}`?" if nearest else ""
