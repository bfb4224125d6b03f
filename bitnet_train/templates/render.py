"""Render a chat as transformers does, in a process that can be ended (`process`).

A template sees the messages as transformers hands them over: keys without a value are left out, and reasoning stands
under each of the names that templates ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitnet_train.templates import process

REASONING = ("reasoning_content", "thinking", "reasoning")
_OF_TRANSFORMERS = "transformers.tokenization_utils_base"
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
Messages = Sequence[Mapping[str, Any]]


def render_template(source: str, messages: Messages, names: Mapping[str, Any], *, ask: bool = True) -> str:
    """Return the text of `messages`; `ask` opens the answer. `names` are whatever else the template may read.

    Raises RenderError when the template is no valid one, refuses the messages, or does not end.
    """
    return process.renderer.render(source, _given(messages, names, ask))


def render_chat(
    tokenizer: Any,
    messages: Messages,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    ask: bool = True,
    go_on: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The same with the template and the special tokens of a tokenizer of transformers.

    With `go_on` the text ends within the last message, to be continued. A tokenizer that renders by itself, without a
    template, does so.

    Raises RenderError as above, ValueError for a tokenizer without a template.
    """
    if _renders_itself(tokenizer):
        further = {"tools": tools, "continue_final_message": go_on, **(variables or {})}
        chat = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=ask, **further))
    source, names = _template(tokenizer, tools, variables)
    if not go_on:
        return render_template(source, messages, names, ask=ask)
    marked = [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + _TAG}]
    text, tag, after = render_template(source, marked, names, ask=False).rpartition(_TAG.strip())
    if not tag:
        raise process.RenderError("it does not write the last message, which is to be continued")
    return text if after.startswith(" ") else text.rstrip()  # a template that strips messages strips this one too


def render_ahead(
    tokenizer: Any,
    chats: Iterable[tuple[Messages, bool]],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any] | None,
) -> None:
    """Have several chats, each with its `ask`, rendered at once; `render_chat` then has their texts at hand."""
    if not _renders_itself(tokenizer):
        source, names = _template(tokenizer, tools, variables)
        process.renderer.ahead(source, (_given(messages, names, ask) for messages, ask in chats))


def _template(tokenizer: Any, tools: Any, variables: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    names = {**tokenizer.special_tokens_map, "tools": tools, **(variables or {})}
    return tokenizer.get_chat_template(tools=tools), names


def _renders_itself(tokenizer: Any) -> bool:
    return type(tokenizer).apply_chat_template.__module__ != _OF_TRANSFORMERS


def _given(messages: Messages, names: Mapping[str, Any], ask: bool) -> dict[str, Any]:
    plain = [_as_given(message) for message in messages]
    return {"tools": None, "documents": None, **names, "messages": plain, "add_generation_prompt": ask}


def _as_given(message: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in message.items() if value is not None}
    reasoning = next((given[name] for name in REASONING if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}
