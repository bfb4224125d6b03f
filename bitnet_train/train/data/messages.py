"""The turns of a chat, as data sets write them.

    {"role", "content"}    and ShareGPT's    {"from", "value"}

Fields that are null count as absent: a table of rows (parquet) gives every message the fields of all roles.
What an assistant's turn holds beside its text (`tool_calls`, `reasoning_content`, `name`, ...) is kept as it stands for
the chat template; `tool_calls` may be JSON text.

    weight, loss_weight, train, training, trainable, loss    0, false: the turn is context only
    anything between 0 and 1                                 refused: a token is a label or it is not
    true on a turn that is not the assistant's               refused: only what the model writes is learned
    an assistant's turn that says nothing                    context only, and counted, unless its weight is 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitnet_train.errors import DataError
from bitnet_train.train.data.tool_calls import read_calls

ROLES = ("system", "developer", "user", "assistant", "tool")
_ALIASES = {  # ShareGPT's names; a function call is written by the model, so it is trained
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}
_SHAPES = (("role", "content"), ("from", "value"))
_WEIGHTS = ("weight", "loss_weight", "train", "training", "trainable", "loss")
_PARTIAL = ("train_detail", "training_detail")  # axolotl's ranges of characters within a turn
REASONING = ("reasoning_content", "reasoning", "thinking")
_SAYS = ("tool_calls", "function_call", *REASONING)
_OFF, _ON = ("0", "0.0", "false", "no"), ("1", "1.0", "true", "yes")

EMPTY_TURNS = "assistant turns that say nothing: read as context, not learned"


@dataclass(frozen=True)
class Message:
    """One turn of a chat. `trained` turns are learned; `fields` is what the template gets beside role and content."""

    role: str
    content: str
    trained: bool
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def says_something(self) -> bool:
        """Whether there is text, or a call or reasoning in the fields."""
        return bool(self.content.strip()) or any(self.fields.get(name) for name in _SAYS)


def read_messages(where: str, turns: list[Any], system: str, notes: Counter[str]) -> tuple[Message, ...]:
    """Return the turns of one chat, `system` (if any) before them unless they have one of their own.

    Counts in `notes` what was left out. Raises DataError on a turn that cannot be read, or when none is learned.
    """
    messages = [read_message(f"{where} message {number}", turn) for number, turn in enumerate(turns, start=1)]
    if system and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", system, False))
    empty = sum(message.role == "assistant" and not message.says_something for message in messages)
    if not any(message.trained for message in messages):
        roles = ", ".join(message.role for message in messages) or "none"
        why = f"; {empty} of the assistant's say nothing" if empty else ""
        raise DataError(
            f"{where}: no assistant turn to learn from (turns: {roles}{why}). Drop the row, or check its roles and"
            " weights."
        )
    if empty:
        notes[EMPTY_TURNS] += sum(m.role == "assistant" and not (m.says_something or m.trained) for m in messages)
    return tuple(messages)


def read_message(where: str, turn: Any) -> Message:
    """Return one turn. Raises DataError on a shape, content or weight that cannot be read."""
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: a message must be an object with role and content, not {type(turn).__name__}.")
    given = {name: value for name, value in turn.items() if value is not None}
    role_field, content_field = _shape(where, turn, given)
    name = given[role_field]
    if not isinstance(name, str):
        raise DataError(f"{where}: `{role_field}` must be a str, not {type(name).__name__}.")
    role = _ALIASES.get(name, name)
    fields = {name: given[name] for name in given if name not in (role_field, content_field, *_WEIGHTS)}
    if "tool_calls" in fields:
        fields["tool_calls"] = read_calls(f"{where} `tool_calls`", fields["tool_calls"])
    message = Message(role, _text_of(where, given.get(content_field, "")), False, fields)
    learned = _learned(where, given, role)
    trained = role == "assistant" and (message.says_something if learned is None else learned)
    return Message(role, message.content, trained, fields)


def _shape(where: str, turn: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the fields of role and content; the assistant's and a tool's content may be absent."""
    for role, content in _SHAPES:
        silent = _ALIASES.get(str(given.get(role)), given.get(role)) in ("assistant", "tool")
        if role in given and (
            content in given or (silent and (content in turn or any(given.get(name) for name in _SAYS)))
        ):
            return role, content
    listing = ", ".join(f"{name} ({type(value).__name__})" for name, value in turn.items()) or "no fields"
    raise DataError(f"{where}: a message needs role and content, or from and value; it has: {listing}.")


def _learned(where: str, given: Mapping[str, Any], role: str) -> bool | None:
    """Return what the weights and flags of a turn say, None without any."""
    partial = next((name for name in _PARTIAL if given.get(name)), None)
    if partial:
        raise DataError(f"{where}: `{partial}` (parts of a turn) is not supported. Drop it, or split the turn.")
    flags = {name: _flag(where, name, given[name]) for name in _WEIGHTS if name in given}
    if len(set(flags.values())) > 1:
        said = ", ".join(f"`{name}` {given[name]!r}" for name in flags)
        raise DataError(f"{where}: {said} contradict each other. Keep one.")
    if role != "assistant" and any(flags.values()):
        name = next(iter(flags))
        raise DataError(
            f"{where}: `{name}` {given[name]!r} on a turn of role {role}: only the assistant's turns can be learned."
            " Set 0, or drop the field."
        )
    return next(iter(flags.values()), None)


def _flag(where: str, name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if isinstance(value, bool | int | float | str) and word in (*_OFF, *_ON):
        return word in _ON
    raise DataError(
        f"{where}: `{name}` {value!r} is not supported: a turn is learned (1, true) or only read (0, false), nothing"
        " between."
    )


def _text_of(where: str, content: Any) -> str:
    """Return a message's text: a string, or a list of text parts, which are joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text", part.get("value")) if isinstance(part, Mapping) else part for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(parts)
        kinds = {str(part.get("type", "object")) for part in content if isinstance(part, Mapping)} - {"text"}
        found = f"a list with {', '.join(sorted(kinds)) or 'other things'}"
    else:
        found = type(content).__name__
    raise DataError(
        f"{where}: content must be text or a list of text parts, not {found}; images and the like are not supported."
    )
