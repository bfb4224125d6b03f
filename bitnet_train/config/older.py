"""What an older run did where its saved configuration does not say, and what it said in words that are no more.

A newer default must not change a run that exists. A run saves every key, so one that is not there had not been
invented, and the run did what `OLDER` says. Recipes and command lines get the newer default. A fingerprint of settings
leaves such keys out where they have the older value, and is the one that the older version made.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

OLDER: Mapping[str, Any] = MappingProxyType(
    {
        "weight.tables": "exact",
        "weight.planes": 1,
        "data.packing": "never",
        "trainer.products": "forward",
        "teacher.products": "float",
    }
)
"""Dotted key -> what runs did before there was one."""
WORDS: Mapping[str, Mapping[Any, str]] = MappingProxyType(
    {"trainer.precision": {"32-true": "fp32", "bf16-mixed": "bf16"}}
)
"""Dotted key -> words that runs were recorded with, and what they are called now."""
LISTED: Mapping[str, str] = MappingProxyType({"evaluate.text": "evaluate.texts"})
"""Dotted key that is no more -> the list that its value is an item of."""


def as_it_ran(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved configuration of a run in the keys and words of today, with those that it is too old to have."""
    content = {section: dict(keys) if isinstance(keys, Mapping) else keys for section, keys in saved.items()}
    for name, value in OLDER.items():
        section, _, key = name.partition(".")
        if isinstance(content.get(section), dict):
            content[section] = {key: value, **content[section]}
    for name, words in WORDS.items():
        section, _, key = name.partition(".")
        if isinstance(content.get(section), dict) and content[section].get(key) in words:
            content[section][key] = words[content[section][key]]
    for name, listed in LISTED.items():
        section, _, key = name.partition(".")
        if isinstance(content.get(section), dict) and key in content[section]:
            _list(content[section], key, listed.rpartition(".")[2])
    return content


def moved(name: str) -> str:
    """Return what has become of a key that is no more, for an error message, or nothing."""
    if name not in LISTED:
        return ""
    return f" It has become an item of a list: `{LISTED[name]}=[FILE]`."


def without_older(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by section, without the keys that say what an older run did anyway."""
    return {
        section: {key: value for key, value in keys.items() if OLDER.get(f"{section}.{key}", _UNKNOWN) != value}
        if isinstance(keys, Mapping)
        else keys
        for section, keys in settings.items()
    }


def _list(section: dict[str, Any], key: str, listed: str) -> None:
    value = section.pop(key)
    section[listed] = [*([] if value is None else [value]), *section.get(listed, [])]


_UNKNOWN = object()
