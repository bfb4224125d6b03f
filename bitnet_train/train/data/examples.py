"""What a training example is, and how a row of a data set becomes one.

    Document      plain text; every token is trained
    Conversation  turns of a chat; only the assistant's turns are trained
    Instruction   one question and its answer; only the answer is trained
    Completion    the same without any template: the answer stands right behind the prompt

How a row is recognised, see `row_shape`; how a message is read, see `messages`. Fields that no rule reads are counted
by `RowReader.unused_fields`, never dropped silently.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bitnet_train.errors import DataError
from bitnet_train.train.data.lone_surrogates import refuse_lone_surrogates, replace_lone_surrogates
from bitnet_train.train.data.messages import Message, read_messages
from bitnet_train.train.data.row_shape import FieldNames, Kind, listing, recognise
from bitnet_train.train.data.tool_calls import read_tools

Tools = tuple[Mapping[str, Any], ...]
Row = tuple[str, Mapping[str, Any]]  # where it stands ("rows.jsonl:12"), and its fields


@dataclass(frozen=True)
class Document:
    """A plain text."""

    text: str


@dataclass(frozen=True)
class Conversation:
    """A chat with at least one trained turn, and the tools it may call. `where` names the row for error messages."""

    messages: tuple[Message, ...]
    where: str = field(default="", compare=False)
    tools: Tools = ()


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


@dataclass(frozen=True)
class Completion:
    """A prompt and the text that goes on from it, both as they stand."""

    prompt: str
    answer: str
    where: str = field(default="", compare=False)


Answered = Conversation | Instruction | Completion
Example = Document | Answered


def named_rows(examples: Sequence[Example], most: int = 3) -> str:
    """Return a sentence that names the rows of the first examples, with a space before it; nothing of plain texts."""
    rows = [example.where for example in examples if not isinstance(example, Document) and example.where]
    if not rows:
        return ""
    further = f" and {len(rows) - most:,} more" if len(rows) > most else ""
    return f" Read: {', '.join(rows[:most])}{further}."


def content_digest(example: Example) -> bytes:
    """SHA-256 of what the example says; where it was read from does not count."""
    content = {name: value for name, value in asdict(example).items() if name != "where"}
    if isinstance(example, Conversation):  # without what it does not have, as it was before chats could have it
        content["messages"] = [_without(asdict(message), "fields") for message in example.messages]
        content = _without(content, "tools")
    record = json.dumps([type(example).__name__, content], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(record.encode("utf-8", errors="surrogatepass")).digest()


def _without(content: dict[str, Any], empty: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value or name != empty}


class RowReader:
    """Turns rows of one data set into examples of one kind, file by file: each may name its fields in its own way.

    `kind` None is decided by the first row. After an iteration `kind` is set, `unused_fields` counts the rows that
    had a field which was not read, by its name, and `notes` what was left out of chats, in words.
    """

    def __init__(self, kind: Kind | None, names: FieldNames, *, replace_surrogates: bool = False) -> None:
        self.kind: Kind | None = kind
        self.names = names
        self.replace_surrogates = replace_surrogates
        self.unused_fields: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._read: FieldNames | None = None

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Yield an example per row, skipping rows of empty text.

        Raises DataError on a missing field, a field of the wrong type, or a chat with no assistant turn.
        """
        self._read = None
        for where, row in rows:
            if self._read is None:
                self.kind, self._read = recognise(where, row, self.kind, self.names)
            example = self._example(where, self._unicode(where, row, self._read), self._read)
            self.unused_fields.update(set(row) - set(asdict(self._read).values()))
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
            return self._chat(where, row, names, _value(where, row, names.messages, list), system)
        assert names.prompt
        assert names.answer
        if self.kind == "chat":
            asked, answered = _turns(where, row, names.prompt, "user"), _turns(where, row, names.answer, "assistant")
            return self._chat(where, row, names, [*asked, *answered], system)
        answer = _string(where, row, names.answer)
        if not answer.strip():
            raise DataError(f"{where}: `{names.answer}` is empty, so there is nothing to learn. Drop the row.")
        if self.kind == "completion":
            return Completion(_string(where, row, names.prompt), answer, where)
        extra = _optional_string(where, row, names.input)
        return Instruction(_string(where, row, names.prompt), answer, extra, system, where)

    def _chat(
        self, where: str, row: Mapping[str, Any], names: FieldNames, turns: list[Any], system: str
    ) -> Conversation:
        messages = read_messages(where, turns, system, self.notes)
        tools = read_tools(f"{where}: field `{names.tools}`", row.get(names.tools)) if names.tools else ()
        return Conversation(messages, where, tools)


def _turns(where: str, row: Mapping[str, Any], name: str, role: str) -> list[Any]:
    """Return a field's turns: those of a list, the asked ones context only; a text is one turn of that role."""
    value = row.get(name)
    if not isinstance(value, list):
        return [{"role": role, "content": _string(where, row, name)}]
    asked = role == "user"
    return [{**turn, "weight": 0} if asked and isinstance(turn, Mapping) else turn for turn in value]


def _value(where: str, row: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in row:
        raise DataError(f"{where}: field `{name}` is missing. The row has: {listing(row)}.")
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
