"""What a model is asked: a text to continue, or a chat, which is a list of messages.

    "def main("                                                       continued as it stands
    "hi", with `chat`                                                 one message of a user
    [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": "hi"}]                               a chat: always through the model's template
    ["one", "another"], or a list of chats                            several, each by itself

A message is an object with `role` and `content`; whatever else it has (`tool_calls`, `name`, `reasoning_content`) goes
to the template as it is. Content is text, null beside other fields (then empty), or the parts of text that some
programs write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bitnet_train.errors import DataError
from bitnet_train.json_text import parse_json

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]
Prompt: TypeAlias = str | Messages

_FORM = 'A chat is a list of messages such as {"role": "user", "content": "hi"}'


def read_prompts(given: Any, *, chat: bool) -> tuple[list[str | list[dict[str, Any]]], bool]:
    """Return the prompts, each a text or a checked chat, and whether several were given.

    Raises DataError for anything else than is described at the top.
    """
    several = isinstance(given, list | tuple) and not _is_chat(given)
    return [_read(one, chat=chat) for one in (given if several else [given])], several


def read_messages(path: Path, named: str | None = None) -> list[dict[str, Any]]:
    """Return the chat in a JSON file: a list of messages, or an object whose `messages` is one; or one a line.

    Raises DataError, which calls the file as it was `named`, when it cannot be read, or holds something else.
    """
    named = named or f"generate.messages={path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = parse_json(text) if text.lstrip().startswith("[") else [parse_json(line) for line in _lines(text)]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"`{named}` cannot be read as JSON: {error}. {_FORM}.") from error
    if len(content) == 1 and isinstance(content[0], dict) and "messages" in content[0]:
        content = content[0]["messages"]
    if not isinstance(content, list) or not content:
        raise DataError(f"`{named}` holds no list of messages. {_FORM}.")
    return [_check(message, number) for number, message in enumerate(content, 1)]


def conversation(prompt: str, system: str | None, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `history` led by `system`; where it waits for no answer, `prompt` is the user's next message.

    Raises DataError when there are two system messages.
    """
    if system is not None and history and history[0]["role"] == "system":
        raise DataError("`generate.system` is set, and `generate.messages` begins with a system message. Drop one.")
    lead = [] if system is None else [{"role": "system", "content": system}]
    is_open = bool(history) and history[-1]["role"] not in ("assistant", "system")
    return [*lead, *history, *([] if is_open else [{"role": "user", "content": prompt}])]


def _lines(text: str) -> list[str]:
    if text.lstrip().startswith("{") and text.rstrip().endswith("}"):
        try:
            return [json.dumps(parse_json(text))]  # one object over several lines
        except ValueError:
            pass
    return [line for line in text.splitlines() if line.strip()]


def _is_chat(given: Sequence[Any]) -> bool:
    return bool(given) and all(isinstance(item, Mapping) for item in given)


def _read(given: Any, *, chat: bool) -> str | list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}] if chat else given
    if not isinstance(given, list | tuple) or not _is_chat(given):
        kinds = [type(given), *(type(item) for item in given[:1])] if isinstance(given, list | tuple) else [type(given)]
        kind = " of ".join(kind.__name__ for kind in kinds)
        raise DataError(f"A prompt is a text or a chat, and this is a {kind}. {_FORM}.")
    messages = [_check(message, number) for number, message in enumerate(given, 1)]
    if messages[-1]["role"] == "assistant":
        raise DataError("The chat ends with the assistant's own message, so there is nothing to answer. Drop it.")
    return messages


def _check(message: Any, number: int) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f"Message {number} of the chat is a {type(message).__name__}, not an object. {_FORM}.")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise DataError(f"Message {number} of the chat has no `role`. {_FORM}.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(message)))
        json.dumps(plain, ensure_ascii=False).encode()  # half a character, which JSON lets pass, is no text
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"Message {number} of the chat holds what JSON cannot: {error}.") from error
    return {**plain, "content": _content(plain, number)}


def _content(message: Mapping[str, Any], number: int) -> str:
    content = message.get("content")
    is_call = "tool_calls" in message or ("content" in message and len(message) > 2)
    if content is None and is_call:
        return ""  # as transformers gives it to a template
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    raise DataError(
        f"Message {number} of the chat ({message['role']}) has no text as its `content`: {str(content)[:60]!r}. "
        "Images and the like are not read."
    )
