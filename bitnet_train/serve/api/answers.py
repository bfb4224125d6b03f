"""JSON of answers, whole and in pieces, of completions and chats: the one class that knows a form is told what it is.

completion   choices[i].text                  logprobs {tokens, token_logprobs, top_logprobs, text_offset}
chat         choices[i].message or .delta     logprobs {content: [{token, logprob, bytes, top_logprobs}]}
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_train import __version__

Told = Sequence[Mapping[str, Any]]  # tokens as a worker tells them
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Answer(ABC):
    """Abstract: the form of one answer, whose id and time its pieces share."""

    prefix: str
    whole: str
    piece: str

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"bitnet-train-{__version__}",
        }

    def of(self, choices: list[dict[str, Any]], usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole answer."""
        return {**self._head, "object": self.whole, "choices": choices, "usage": usage}

    def piece_of(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a piece of it."""
        return {**self._head, "object": self.piece, "choices": choices, **more}

    @abstractmethod
    def choice(self, index: int, text: str, told: Told, finish: str) -> dict[str, Any]:
        """Return a whole choice."""

    @abstractmethod
    def part(self, index: int, text: str, told: Told, offset: int, finish: str | None = None) -> dict[str, Any]:
        """Return a piece of a choice that begins after `offset` characters; the last one has a `finish`."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return the piece before all others, if there is one."""
        return None


class CompletionAnswer(Answer):
    """/v1/completions."""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, text: str, told: Told, finish: str) -> dict[str, Any]:
        """Return a whole choice."""
        return self.part(index, text, told, 0, finish)

    def part(self, index: int, text: str, told: Told, offset: int, finish: str | None = None) -> dict[str, Any]:
        """Return a piece of a choice."""
        logprobs = _lists(told, offset) if told else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


class ChatAnswer(Answer):
    """/v1/chat/completions."""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, text: str, told: Told, finish: str) -> dict[str, Any]:
        """Return a whole choice."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": _content(told), "finish_reason": finish}

    def part(self, index: int, text: str, told: Told, offset: int, finish: str | None = None) -> dict[str, Any]:
        """Return a piece of a choice."""
        delta = {} if finish is not None and not text else {"content": text}
        return {"index": index, "delta": delta, "logprobs": _content(told), "finish_reason": finish}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return the piece that says who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def usage(prompt_tokens: int, new_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """Return the counts of an answer; a prompt counts once, however many choices it has."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def _lists(told: Told, offset: int) -> dict[str, Any]:
    offsets = []
    for token in told:
        offsets.append(offset)
        offset += len(token["text"])
    return {
        "tokens": [token["text"] for token in told],
        "token_logprobs": [token["logprob"] for token in told],
        "top_logprobs": [_top(token) for token in told],
        "text_offset": offsets,
    }


def _top(token: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the likeliest tokens by their text; the likelier of two with one text, as parts of characters have."""
    if token["logprob"] is None:
        return None
    found: dict[str, float] = {}
    for _, text, logprob in token["top"]:
        found.setdefault(text, logprob)
    return found


def _content(told: Told) -> dict[str, Any] | None:
    if not told:
        return None
    content = [
        {**_one(token["text"], token["logprob"]), "top_logprobs": [_one(text, log) for _, text, log in token["top"]]}
        for token in told
    ]
    return {"content": content, "refusal": None}


def _one(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": None if _UNFINISHED in text else list(text.encode())}
