r"""`/params`: how answers are written, shown and changed while one talks.

/params                                  show all
/params temperature=0.8 top_p=0.95       numbers
/params stop=["END", "\n\n"]             a JSON list; stop=END and stop= (none) do too
/params logit_bias={"50": -100}          JSON: numbers by token id
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from bitnet_train.errors import ConfigError
from bitnet_train.json_text import parse_json
from bitnet_train.runtime.generation import GenerationOptions, Sampling
from bitnet_train.serve.chat.shown import in_line
from bitnet_train.settings import did_you_mean

NAMES = (*(field.name for field in fields(Sampling)), "stop")
_NAME = re.compile(r"\s*(\w+)\s*=\s*")
_WORD = re.compile(r"\S*")
_TEXT = r'"(?:[^"\\]|\\.)*"'
_JSON = re.compile(rf"{_TEXT}|\{{[^{{}}]*\}}|\[\s*(?:{_TEXT}\s*(?:,\s*{_TEXT}\s*)*)?\]")
_KINDS = {"int": (int, "a whole number"), "float": (float, "a number")}


def parameter_line(options: GenerationOptions) -> str:
    """Return every parameter with its value, as it is set."""
    values = {**{name: getattr(options, name) for name in NAMES}, "stop": list(options.stop)}
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def with_parameters(options: GenerationOptions, words: str) -> GenerationOptions:
    """Return other options. Raises ConfigError for a name that there is not, or a value that it cannot have."""
    return replace(options, **dict(_pairs(words)))


def _pairs(words: str) -> Iterator[tuple[str, Any]]:
    at = 0
    while words[at:].strip():
        named = _NAME.match(words, at)
        if named is None:
            raise ConfigError(f"`{in_line(words[at:].strip(), 60)}` is no NAME=VALUE. Known: {', '.join(NAMES)}.")
        value, at = _value(named[1], words, named.end())
        yield named[1], value


def _value(name: str, words: str, at: int) -> tuple[Any, int]:
    if name not in NAMES:
        raise ConfigError(
            f"There is no parameter `{in_line(name, 60)}`.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}."
        )
    if words[at : at + 1] in ("[", '"', "{"):
        found = _JSON.match(words, at)
        if found is None:
            raise ConfigError(f'`{name}={in_line(words[at:], 60)}` is no JSON. A list of texts is ["one", "two"].')
        try:
            return _read(name, parse_json(found[0])), found.end()
        except json.JSONDecodeError as error:
            raise ConfigError(f"`{name}={in_line(words[at:], 60)}` is no JSON: {error}.") from None
    word = _WORD.match(words, at)
    assert word is not None, "it matches nothing too"
    return _read(name, word[0]), word.end()


def _read(name: str, value: Any) -> Any:
    if name == "stop":
        listed = [value] if isinstance(value, str) and value else value or []
        return tuple(listed)
    if name == "logit_bias":
        return _bias(value)
    kind, called = _KINDS[str(Sampling.__dataclass_fields__[name].type)]
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"`{name}={in_line(str(value), 60)}` is not {called}.") from None


def _bias(value: Any) -> dict[int, Any]:
    try:
        return {int(token_id): number for token_id, number in value.items()} if value else {}
    except (AttributeError, ValueError):
        raise ConfigError(f"`logit_bias={in_line(str(value), 60)}` is no JSON object of numbers by token id.") from None
