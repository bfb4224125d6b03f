"""Tools a model may call and the calls it makes, in the form that chat templates are written for.

    tools         [{"type": "function", "function": {"name", "description", "parameters"}}]
    tool_calls    [{"type": "function", "function": {"name", "arguments"}}]

Data sets also write them as JSON text, and without the outer object; `arguments` as an object or, OpenAI's way, as JSON
text. Here arguments that are JSON text of an object become the object; a template that wants text gets it back, see
`chat_template`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bitnet_train.errors import DataError
from bitnet_train.json_text import parse_json


def read_tools(where: str, value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of one row; none for null, an empty text or an empty list. Raises DataError."""
    return tuple(_wrapped(tool) for tool in _objects(where, value))


def read_calls(where: str, value: Any) -> list[Mapping[str, Any]]:
    """Return the calls of one turn, their arguments as objects where they are JSON. Raises DataError."""
    return [_with_arguments(_wrapped(call), _object_of) for call in _objects(where, value)]


def with_text_arguments(calls: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the calls with their arguments as JSON text."""
    return [_with_arguments(call, _text_of) for call in calls]


def call_names(calls: Any) -> list[str]:
    """Return the names of the functions that are called."""
    functions = [call.get("function") for call in calls or ()]
    return [str(function["name"]) for function in functions if isinstance(function, Mapping) and "name" in function]


def _objects(where: str, value: Any) -> list[Mapping[str, Any]]:
    found = value
    if isinstance(value, str):
        try:
            found = parse_json(value) if value.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is text, but not JSON ({error.msg} at column {error.colno}).") from error
    found = [found] if isinstance(found, Mapping) else found or []
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise DataError(f"{where} must be a list of objects, not {type(value).__name__}.")
    return found


def _wrapped(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return item if "function" in item or "name" not in item else {"type": "function", "function": item}


def _with_arguments(call: Mapping[str, Any], change: Any) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": change(function["arguments"])}}


def _object_of(arguments: Any) -> Any:
    try:
        found = parse_json(arguments) if isinstance(arguments, str) else arguments
    except json.JSONDecodeError:
        return arguments
    return found if isinstance(found, Mapping) else arguments


def _text_of(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
