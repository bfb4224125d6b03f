"""Strict JSON: every field known, present and of its type, or a `FormatError` that names the field.

A manifest arrives from someone else's machine. The stock parser accepts a repeated key (last one wins), `NaN`, and
any nesting depth; a dataclass built with `**fields` reports an unknown key as a `TypeError` about an internal
function. Here each of those is an error for people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from bitnet_train.errors import FormatError
from bitnet_train.json_text import parse_json

Value = TypeVar("Value")


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Parse one JSON object; `where` is the name of the file in messages."""
    try:
        value = parse_json(text, pairs=_unique_pairs, constant=_refuse_constant)
    except ValueError as error:
        raise FormatError(
            f"{where} is not valid JSON ({error}). The file is damaged or was cut short: copy the folder again."
        ) from error
    if not isinstance(value, dict):
        raise FormatError(f"{where} holds a JSON {type(value).__name__}, not an object. Copy the folder again.")
    return value


class Fields:
    """The fields of one JSON object, taken one at a time; `done` refuses what nobody took."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise FormatError(f"{where} must be an object, not {_describe(values)}.")
        self._values = dict(values)
        self._where = where

    def take(self, name: str, kind: type[Value]) -> Value:
        """Remove and return one field of exactly this JSON type (a boolean is not an integer)."""
        if name not in self._values:
            raise FormatError(f"{self._where} has no field `{name}`.")
        value = self._values.pop(name)
        if type(value) is not kind:
            raise FormatError(f"{self._where}: `{name}` must be a {kind.__name__}, not {_describe(value)}.")
        return value

    def take_count(self, name: str, least: int = 0) -> int:
        """Remove and return an integer of at least `least`."""
        value = self.take(name, int)
        if value < least:
            raise FormatError(f"{self._where}: `{name}` must be at least {least}, not {value}.")
        return value

    def take_map(self, name: str, read: Callable[[Any, str], Value]) -> dict[str, Value]:
        """Remove and return an object whose values are all read by `read(value, where)`."""
        values = self.take(name, dict)
        return {key: read(value, f"{self._where}: `{name}.{key}`") for key, value in values.items()}

    def take_list(self, name: str, read: Callable[[Any, str], Value]) -> tuple[Value, ...]:
        """Remove and return a list whose items are all read by `read(value, where)`."""
        values = self.take(name, list)
        return tuple(read(value, f"{self._where}: `{name}[{i}]`") for i, value in enumerate(values))

    def done(self) -> None:
        """Refuse fields that are left over."""
        if self._values:
            names = ", ".join(f"`{name}`" for name in sorted(self._values))
            raise FormatError(f"{self._where} has fields that this version does not know: {names}.")


def read_text(value: object, where: str) -> str:
    """Return `value` if it is a string."""
    if not isinstance(value, str):
        raise FormatError(f"{where} must be a string, not {_describe(value)}.")
    return value


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a field is given twice")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _describe(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
