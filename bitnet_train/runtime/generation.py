"""What continuing a prompt takes and gives, the same for both engines. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from bitnet_train.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How a text goes on: by up to `max_new_tokens` tokens, greedily at temperature 0, else drawn from the likeliest.

    Of the tokens, the `top_k` likeliest stay (0: all), of them the likeliest with total probability `top_p` (1: all),
    of them those at least `min_p` times as likely as the likeliest (0: all). The seed gives the same text every time,
    with the same engine. ConfigError for a value that is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        is_count = type(self.max_new_tokens) is int and self.max_new_tokens >= 0
        _require("max_new_tokens", self.max_new_tokens, is_count, "a whole number, 0 or more")
        _require("temperature", self.temperature, 0 <= self.temperature < float("inf"), "a finite number, 0 or more")
        _require("top_k", self.top_k, 0 <= self.top_k < 1 << 31, "a whole number, 0 or more")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _require("min_p", self.min_p, 0 <= self.min_p < 1, "at least 0 and below 1")

    @property
    def is_greedy(self) -> bool:
        """True when always the likeliest token is taken."""
        return self.temperature == 0


@dataclass(frozen=True)
class GenerationOptions(Sampling):
    """All that either engine is told beside the prompt: how it is read, how the text goes on, and where it ends.

    chat
        Treat a text as a user's message and wrap it in the model's chat template, as a chat always is.
    chat_template_variables
        What the chat template is given beside the messages, as it was in training.
    stop
        Strings that end the text, which then ends before them. They may begin and end inside tokens.

    An end-of-text token ends a text too.
    """

    chat: bool = False
    chat_template_variables: Mapping[str, Any] | None = None
    stop: Sequence[str] = ()


class GenerationKeywords(TypedDict, total=False):
    """The fields of `GenerationOptions` as keywords, for a type checker."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    chat: bool
    chat_template_variables: Mapping[str, Any] | None
    stop: Sequence[str]


@dataclass(frozen=True)
class Generation:
    """A continuation: its text without the prompt, its token ids, and how long it took.

    An end-of-text token is among the ids and not in the text. A stop string ends both: its tokens are among the ids,
    and the text ends before it.
    """

    text: str
    token_ids: list[int]
    num_prompt_tokens: int
    seconds: float


def _require(name: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"`{name}={value}` is out of range: it must be {allowed}.")
