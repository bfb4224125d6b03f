"""The tokens that end a text, of plain JSON: read without transformers by the exporters and by the native runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LARGEST = 1 << 31


def end_tokens(generation: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids of `generation_config.json`, else those of `config.json`; each once, in the file's order."""
    for settings in (generation, config):
        given = settings.get("eos_token_id")
        found = given if isinstance(given, list) else [given]
        if found != [None]:
            return tuple(dict.fromkeys(number for number in found if type(number) is int and 0 <= number < _LARGEST))
    return ()
