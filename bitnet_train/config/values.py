r"""The value of one `key=value` word: text and lists of texts as a person means them, all else as Hydra reads it.

A shell has taken its quotes away before we see a word: `generate.stop=["\n"]` arrives as `[\n]`, and with another pair
of quotes around it as `["\n"]`. Both are a newline.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bitnet_train.config.interpolation import escape
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.yaml_text import MOST_LEVELS
from bitnet_train.errors import ConfigError
from bitnet_train.sweep.ranges import is_range

COMMAND_LINE = "command line"
_SEVERAL = "one value is needed, not a sweep. A list is `[a,b]`; several values are tried by `bitnet-train sweep`."

_ITEM = re.compile(r"""[ ]*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^ "',][^,]*?|)[ ]*(?:,|\Z)""", re.DOTALL)
_ESCAPE = re.compile(r'\\(?:u[0-9a-fA-F]{4}|["\\nrt])')


def read_value(full: str, word: str) -> Any:
    """Return the value of `word`, which sets the key `full`; `ConfigError` says how it must be written."""
    key, text = known_keys().get(full), word.partition("=")[2]
    kind = str(key.type) if key is not None else ""
    if kind.startswith("str"):
        return _text(text)
    if kind == "list[str]" and text[:1] + text[-1:] == "[]":
        return [
            escape(item)
            for item in _items(text[1:-1].strip(" "), word, is_path=key is not None and key.metadata["path"])
        ]
    if is_range(kind, text):
        raise ConfigError(f"`{word}` ({COMMAND_LINE}): {_SEVERAL}")
    return escape(text) if text.startswith("~") else _parsed(word)


def _text(text: str) -> str | None:
    """Take the text as it stands, so that a prompt may hold any punctuation; quotes around all of it are dropped."""
    if text == "null":
        return None
    is_quoted = len(text) >= 2 and text[0] in "'\"" and text.count(text[0]) == 2 and text[-1] == text[0]
    return escape(text[1:-1] if is_quoted else text)


def _items(text: str, word: str, *, is_path: bool) -> list[str]:
    r"""Split at the commas outside quotes; escapes such as \n are read, but not in '...', nor in paths."""
    items, at = [], 0
    while at < len(text):
        found = _ITEM.match(text, at)
        if found is None:
            raise ConfigError(
                f"`{word}` ({COMMAND_LINE}): at `{text[at:].strip()}` a quote is not closed, or something follows it. "
                'An item that begins with a quote ends with the same: `[\'"\',"a, b"]`.'
            )
        items.append(_item(found[1], is_path=is_path))
        at = found.end()
    return items


def _item(text: str, *, is_path: bool) -> str:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    bare = text[1:-1] if text.startswith('"') else text
    return bare if is_path else _ESCAPE.sub(lambda found: json.loads(f'"{found[0]}"'), bare)


def _parsed(word: str) -> Any:
    if max(map(word.count, "[{(")) > MOST_LEVELS and _levels(word) > MOST_LEVELS:
        raise ConfigError(f"`{word[:60]}...` ({COMMAND_LINE}): a value has at most {MOST_LEVELS} levels of brackets.")
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(
            f"`{word}` ({COMMAND_LINE}): not a `key=value` word: {' '.join(str(error).splitlines()[0].split())}. "
            "Lists are `[a,b]`; quote punctuation inside them."
        ) from None
    if override.is_sweep_override():
        raise ConfigError(f"`{word}` ({COMMAND_LINE}): {_SEVERAL}")
    return override.value()


def _levels(word: str) -> int:
    return max(accumulate((letter in "[{(") - (letter in "]})") for letter in word))
