'''`Modelfile`: what `ollama create NAME -f Modelfile` reads beside the GGUF.

    FROM ./model.gguf
    TEMPLATE """..."""        the chat template in Go's language, where it can be said exactly (`chat_shape`)
    SYSTEM """..."""          the system message that the chat template writes where none is given
    PARAMETER num_ctx 8192    the model's context; Ollama's own default is shorter
    PARAMETER stop "<|im_end|>"
    PARAMETER temperature 0.6 and the rest of the sampling that the model's authors recommend, if they do

Syntax: the Modelfile reference at docs.ollama.com, and parser/parser.go of Ollama. Its parser leaves characters out
that cannot be printed and knows no escapes, so a text that it would change is not written. Without TEMPLATE, Ollama
looks for a template of its own that resembles the one inside the GGUF.
'''

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitnet_train.exporters.gguf.chat_shape import ChatShape, Message, find_shape, trims
from bitnet_train.exporters.gguf.container import MODEL_NAME
from bitnet_train.exporters.gguf.go_template import go_template
from bitnet_train.templates.process import RenderError
from bitnet_train.templates.render import render_template

NAME = "Modelfile"
_BLOCK = '"""'
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""Hugging Face's name of a setting -> Ollama's parameter."""


@dataclass(frozen=True)
class ChatFormat:
    """What is said of chats: the jinja template, what it may read, and the token that is put before every text.

    `begins` is that token where the GGUF has it added by itself, else empty.
    """

    template: str | None
    names: Mapping[str, str]
    begins: str = ""


@dataclass(frozen=True)
class Modelfile:
    """The text of the file, and what a person should know of it."""

    text: str
    notes: tuple[str, ...] = ()


def modelfile(
    chat: ChatFormat, *, context: int, ends: Sequence[str], generation: Mapping[str, Any] | None = None
) -> Modelfile:
    """Return the Modelfile of a GGUF: `context` in tokens, `ends` the texts of the tokens that end an answer."""
    shape, notes = _shape(chat)
    template = None if shape is None else go_template(shape)
    if template is not None and not _is_kept(template):
        template, notes = None, ["the chat template has characters that a Modelfile cannot hold", *notes]
    if shape is None or template is None:
        told = f"{notes[0]}, so the Modelfile has no TEMPLATE: Ollama takes the nearest that it knows"
        return Modelfile(_text([f"FROM ./{MODEL_NAME}", *_parameters(context, ends, generation or {})]), (told,))
    lines = [f"FROM ./{MODEL_NAME}", f"TEMPLATE {_BLOCK}{template}{_BLOCK}"]
    if shape.default_system and _is_kept(shape.default_system):
        lines.append(f"SYSTEM {_BLOCK}{shape.default_system}{_BLOCK}")
    return Modelfile(_text([*lines, *_parameters(context, ends, generation or {})]), tuple(notes))


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _shape(chat: ChatFormat) -> tuple[ChatShape | None, list[str]]:
    """Return the shape of the chats, and notes; without a shape the first note says why there is none."""
    if chat.template is None:
        return None, ["the model has no chat template"]
    source, begins = chat.template, chat.begins

    def render(messages: Sequence[Message], ask: bool) -> str:
        text = render_template(source, messages, chat.names, ask=ask)
        if begins and not text.startswith(begins):
            raise RenderError("it does not begin as every text of this model does")
        return text.removeprefix(begins)

    shape = find_shape(render)
    if shape is None:
        return None, ["the chat template cannot be said exactly in Ollama's language"]
    return shape, list(_notes(shape, trims(render)))


def _notes(shape: ChatShape, is_trimming: bool) -> Iterator[str]:
    if is_trimming:
        yield "the chat template takes spaces away around messages, and Ollama sends them as they are"
    if shape.place == "none":
        yield "the chat template takes no system message, so Ollama leaves one out"


def _parameters(context: int, ends: Sequence[str], generation: Mapping[str, Any]) -> Iterator[str]:
    yield f"PARAMETER num_ctx {context}"
    yield from (f"PARAMETER stop {_quoted(end)}" for end in dict.fromkeys(ends) if end and _is_kept(end))
    for name, parameter in _SAMPLING.items() if generation.get("do_sample") else ():
        value = generation.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"PARAMETER {parameter} {value}"


def _quoted(text: str) -> str:
    return f"{_BLOCK}{text}{_BLOCK}" if '"' in text else f'"{text}"'


def _is_kept(text: str) -> bool:
    """Whether Ollama's parser gives a text back as it is between three quotes."""
    return _BLOCK not in text and all(letter.isprintable() or letter in "\n\t" for letter in text)
