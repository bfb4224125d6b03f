"""Which fields of a row are read, and as what.

Rows come in a handful of shapes, found by their field names (first match wins, in this order):

    messages | conversations               [{"role", "content"}] or ShareGPT's [{"from", "value"}]    chat
    instruction [+ input] + output         Alpaca                                                     instruction
    question + answer,  prompt + response | completion                                                instruction
    prompt + completion as lists of messages (TRL's form); only the completion is trained             chat
    any of these pairs, where `data.kind=completion`                                                  completion
    text | content                                                                                    text

The shape is decided on the first row of a file and then holds for the file: a later row without the field is an error
that names it. All files are of one kind. `system`, and `tools` of chats, are read where a row has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bitnet_train.errors import DataError

Kind = Literal["text", "chat", "instruction", "completion"]

_MESSAGES = ("messages", "conversations")
_PAIRS = (
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "completion"),
)
_TEXTS = ("text", "content")


@dataclass(frozen=True)
class FieldNames:
    """Names of the fields to read; None = found by the table above."""

    text: str | None = None
    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    answer: str | None = None
    system: str | None = None
    tools: str | None = None


def recognise(where: str, row: Mapping[str, Any], kind: Kind | None, names: FieldNames) -> tuple[Kind, FieldNames]:
    """Return the kind of the data set and the fields to read, from its first row."""
    system = names.system or "system"
    if kind in (None, "chat"):
        messages = names.messages or _first(row, _MESSAGES)
        if messages and not (kind is None and (names.text or names.prompt)):
            return "chat", FieldNames(messages=messages, system=system, tools="tools")
    if kind in (None, "chat", "instruction", "completion") and not (kind is None and names.text):
        found = _recognise_pair(row, kind, _pair(row, names), names)
        if found:
            return found
    if kind in (None, "text"):
        text = names.text or _first(row, _TEXTS)
        if text:
            return "text", FieldNames(text=text)
    raise DataError(
        f"{where}: no field to read as {kind or 'text, chat or instruction'}. The row has: {listing(row)}.\n"
        "Known are messages | conversations, instruction + output, question + answer, prompt + response | completion,"
        " text | content. Name yours with `data.text_field`, `data.messages_field`, or `data.prompt_field` and"
        " `data.answer_field`."
    )


def _recognise_pair(
    row: Mapping[str, Any], kind: Kind | None, pair: tuple[str, str] | None, names: FieldNames
) -> tuple[Kind, FieldNames] | None:
    if pair is None:
        return None
    fields = FieldNames(prompt=pair[0], answer=pair[1])
    if kind == "completion":
        return kind, fields
    fields = replace(fields, system=names.system or "system")
    if any(isinstance(row[name], list) for name in pair):
        return "chat", replace(fields, tools="tools")
    return None if kind == "chat" else ("instruction", replace(fields, input=names.input or "input"))


def _pair(row: Mapping[str, Any], names: FieldNames) -> tuple[str, str] | None:
    for prompt, answer in _PAIRS:
        prompt, answer = names.prompt or prompt, names.answer or answer
        if prompt in row and answer in row:
            return prompt, answer
    return None


def _first(row: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in row), None)


def listing(row: Mapping[str, Any]) -> str:
    """Return the fields of a row with their types, for error messages."""
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in row.items()) or "no fields"
