"""What a training example is, and how a row of a data set becomes one.

    Document      plain text; every token is trained
    Conversation  turns of a chat; only the assistant's turns are trained
    Instruction   one question and its answer; only the answer is trained

Rows come in a handful of shapes, found by their field names (first match wins, in this order):

    messages | conversations               [{"role", "content"}] or ShareGPT's [{"from", "value"}]    chat
    instruction [+ input] + output         Alpaca                                                     instruction
    question + answer,  prompt + response | completion                                                instruction
    text | content                                                                                    text

The shape is decided on the first row of a file and then holds for the file: a later row without the field is an error
that names it. All files are of one kind. A chat message may carry `loss_weight` or `weight`; 0 means "context only".
Fields that no rule reads are reported by `RowReader.unused_fields`, never dropped silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bitnet_train.errors import DataError
from bitnet_train.train.lone_surrogates import refuse_lone_surrogates, replace_lone_surrogates

Kind = Literal["text", "chat", "instruction"]
Row = tuple[str, Mapping[str, Any]]  # where it stands ("rows.jsonl:12"), and its fields

_MESSAGES = ("messages", "conversations")
_PAIRS = (
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "completion"),
)
_TEXTS = ("text", "content")
_ROLES = {  # ShareGPT's names; a function call is written by the model, so it is trained
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}


@dataclass(frozen=True)
class Message:
    """One turn of a chat. `trained` is True for the assistant's turns unless their weight is 0."""

    role: str
    content: str
    trained: bool


@dataclass(frozen=True)
class Document:
    """A plain text."""

    text: str


@dataclass(frozen=True)
class Conversation:
    """A chat with at least one trained turn. `where` names the row for error messages."""

    messages: tuple[Message, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Instruction:
    """A prompt, optional further input and system text ("" = none), and the answer to learn."""

    prompt: str
    answer: str
    input: str = ""
    system: str = ""
    where: str = field(default="", compare=False)

    def as_conversation(self) -> Conversation:
        """Return the same content as system (if any), user and assistant turns."""
        question = f"{self.prompt}\n\n{self.input}" if self.input else self.prompt
        system = (Message("system", self.system, False),) if self.system else ()
        turns = (Message("user", question, False), Message("assistant", self.answer, True))
        return Conversation(system + turns, self.where)


Example = Document | Conversation | Instruction


def content_digest(example: Example) -> bytes:
    """SHA-256 of what the example says; where it was read from does not count."""
    content = {name: value for name, value in asdict(example).items() if name != "where"}
    record = json.dumps([type(example).__name__, content], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(record.encode("utf-8", errors="surrogatepass")).digest()


@dataclass(frozen=True)
class FieldNames:
    """Names of the fields to read; None = found by the table above."""

    text: str | None = None
    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    answer: str | None = None
    system: str | None = None


class RowReader:
    """Turns rows of one data set into examples of one kind, file by file: each may name its fields in its own way.

    `kind` None is decided by the first row. After an iteration `kind` is set and `unused_fields` holds the names
    of fields that were present but not read.
    """

    def __init__(self, kind: Kind | None, names: FieldNames, *, replace_surrogates: bool = False) -> None:
        self.kind: Kind | None = kind
        self.names = names
        self.replace_surrogates = replace_surrogates
        self.unused_fields: set[str] = set()
        self._read: FieldNames | None = None

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield an example per row, skipping rows of empty text.

        Raises DataError on a missing field, a field of the wrong type, or a chat with no assistant turn.
        """
        self._read = None
        for where, row in rows:
            if self._read is None:
                self.kind, self._read = _recognise(where, row, self.kind, self.names)
            example = self._example(where, self._unicode(where, row, self._read), self._read)
            self.unused_fields |= set(row) - {name for name in asdict(self._read).values() if name}
            if example is not None:
                yield example

    def _unicode(self, where: str, row: Mapping[str, Any], names: FieldNames) -> Mapping[str, Any]:
        """Return the row with no half of a surrogate pair in the fields that are read."""
        read = {name: row[name] for name in asdict(names).values() if name in row}
        if self.replace_surrogates:
            return {**row, **replace_lone_surrogates(read)}
        for name, value in read.items():
            refuse_lone_surrogates(where, name, value)
        return row

    def _example(self, where: str, row: Mapping[str, Any], names: FieldNames) -> Example | None:
        if names.text:
            text = _string(where, row, names.text)
            return Document(text) if text.strip() else None
        system = _optional_string(where, row, names.system)
        if names.messages:
            return Conversation(_messages(where, row, names.messages, system), where)
        assert names.prompt
        assert names.answer
        answer = _string(where, row, names.answer)
        if not answer.strip():
            raise DataError(f"{where}: `{names.answer}` is empty, so there is nothing to learn. Drop the row.")
        extra = _optional_string(where, row, names.input)
        return Instruction(_string(where, row, names.prompt), answer, extra, system, where)


def _recognise(where: str, row: Mapping[str, Any], kind: Kind | None, names: FieldNames) -> tuple[Kind, FieldNames]:
    """Return the kind of the data set and the fields to read, from its first row."""
    system = names.system or ("system" if "system" in row else None)
    if kind in (None, "chat"):
        messages = names.messages or _first(row, _MESSAGES)
        if messages and not (kind is None and (names.text or names.prompt)):
            return "chat", FieldNames(messages=messages, system=system)
    if kind in (None, "instruction") and not (kind is None and names.text):
        pair = _pair(row, names)
        if pair:
            extra = names.input or ("input" if "input" in row else None)
            return "instruction", FieldNames(prompt=pair[0], answer=pair[1], input=extra, system=system)
    if kind in (None, "text"):
        text = names.text or _first(row, _TEXTS)
        if text:
            return "text", FieldNames(text=text)
    raise DataError(
        f"{where}: no field to read as {kind or 'text, chat or instruction'}. The row has: {_listing(row)}.\n"
        "Known are messages | conversations, instruction + output, question + answer, prompt + response | completion,"
        " text | content. Name yours with `data.text_field`, `data.messages_field`, or `data.prompt_field` and"
        " `data.answer_field`."
    )


def _pair(row: Mapping[str, Any], names: FieldNames) -> tuple[str, str] | None:
    for prompt, answer in _PAIRS:
        prompt, answer = names.prompt or prompt, names.answer or answer
        if prompt in row and answer in row:
            return prompt, answer
    return None


def _first(row: Mapping[str, Any], candidates: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in row), None)


def _listing(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in row.items()) or "no fields"


def _value(where: str, row: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in row:
        raise DataError(f"{where}: field `{name}` is missing. The row has: {_listing(row)}.")
    value = row[name]
    if not isinstance(value, kind):
        raise DataError(f"{where}: field `{name}` must be a {kind.__name__}, not {type(value).__name__}.")
    return value


def _string(where: str, row: Mapping[str, Any], name: str) -> str:
    return _value(where, row, name, str)


def _optional_string(where: str, row: Mapping[str, Any], name: str | None) -> str:
    if name is None or row.get(name) is None:
        return ""
    return _string(where, row, name)


def _messages(where: str, row: Mapping[str, Any], name: str, system: str) -> tuple[Message, ...]:
    turns = [_message(f"{where} message {i + 1}", turn) for i, turn in enumerate(_value(where, row, name, list))]
    if system and not (turns and turns[0].role == "system"):
        turns.insert(0, Message("system", system, False))
    if not any(turn.trained for turn in turns):
        roles = ", ".join(turn.role for turn in turns) or "none"
        raise DataError(f"{where}: no assistant turn to learn from (turns: {roles}). Drop the row or check its roles.")
    return tuple(turns)


def _message(where: str, turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: a message must be an object with role and content, not {type(turn).__name__}.")
    shape = next(
        (pair for pair in (("role", "content"), ("from", "value")) if pair[0] in turn and pair[1] in turn), None
    )
    if shape is None:
        raise DataError(f"{where}: a message needs role and content, or from and value; it has: {_listing(turn)}.")
    given = _string(where, turn, shape[0])
    role = _ROLES.get(given, given)
    weight = turn.get("loss_weight", turn.get("weight"))
    return Message(role, _text_of(where, turn[shape[1]]), role == "assistant" and weight != 0)


def _text_of(where: str, content: Any) -> str:
    """Return a message's text: a string, or a list of text parts, which are joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text", part.get("value")) for part in content if isinstance(part, Mapping)]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
    raise DataError(f"{where}: content must be text or a list of text parts; images and the like are not supported.")
