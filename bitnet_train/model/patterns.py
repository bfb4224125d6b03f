"""Names of layers: the roles they may have, the globs that choose them, and the families they fall into.

A pattern is a glob over the full name or any dotted tail of it: `mlp.*`, `layers.0.*`, `q_proj`. A family is what is
left of a name without its block numbers: `model.layers.*.mlp.down_proj`. Nothing heavy is imported here, so that a
configuration can be checked before a model is loaded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

ROLES = ("attention", "mlp", "head", "embedding")
OTHER, TOWER, ROUTER = "other", "tower", "router"
BY_NAME_ONLY = {OTHER: "not part of a known role", TOWER: "not of the language model", ROUTER: "a gate or a router"}
"""Roles that no `model.roles` chooses, only an `include` pattern that names the layer -> why they stay float."""


def matches(name: str, pattern: str) -> bool:
    """Whether the glob fits the full name or a dotted tail of it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def star_numbers(name: str) -> str:
    """A layer name with its block numbers replaced by `*`: the name of a family of layers."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def closest(pattern: str, names: Iterable[str]) -> str:
    """The family of `names` that is most like a pattern, with how many layers it has; for error messages."""
    families: dict[str, int] = {}
    for name in names:
        families[star_numbers(name)] = families.get(star_numbers(name), 0) + 1
    wanted = star_numbers(pattern)
    best = max(families, key=lambda family: _similarity(wanted, family), default=None)
    if best is None:
        return "none, the model has no such layer"
    return f"{best} ({families[best]} layer{'s' if families[best] > 1 else ''})"


def _similarity(pattern: str, family: str) -> float:
    tails = [family] + [family.split(".", cut)[-1] for cut in range(1, family.count(".") + 1)]
    return max(difflib.SequenceMatcher(None, pattern, tail).ratio() for tail in tails)
