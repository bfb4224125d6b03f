"""`${...}` in a value: what OmegaConf would put in its place.

`${KEY}` of another key is read. `${NAME:...}` calls a resolver: it asks the environment, the clock or the machine, and
what it says would stand in `config.yaml`, in facts and in names of folders, where a token of the environment does not
belong. So no resolver is ever called. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTERPOLATION = re.compile(r"\\*\$\{|[:}]")


def escape(text: str) -> str:
    """Return the text as YAML must hold it for OmegaConf to read it as it is, without interpolating `${...}`."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)


def resolver_in(value: Any) -> str | None:
    """Return the first text in a value, at any depth, that OmegaConf would call a resolver for: `${oc.env:HOME}`."""
    if isinstance(value, str):
        return value if _calls_resolver(value) else None
    inside = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    found = map(resolver_in, inside) if isinstance(inside, list | tuple) else iter(())
    return next((text for text in found if text is not None), None)


def _calls_resolver(text: str) -> bool:
    """Whether a colon stands inside `${...}`; a `${` after an odd number of backslashes is text."""
    levels = 0
    for found in _INTERPOLATION.finditer(text):
        if found[0].endswith("${"):
            levels += len(found[0]) % 2 == 0
        elif levels and found[0] == ":":
            return True
        elif levels and found[0] == "}":
            levels -= 1
    return False
