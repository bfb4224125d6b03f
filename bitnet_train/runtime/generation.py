"""What continuing a prompt takes and gives, the same for both engines. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypedDict

from bitnet_train.errors import ConfigError

REPETITION, MOST_PENALTY, MOST_BIAS = (0.01, 100.0), 2.0, 100.0  # OpenAI's ranges, where it has the setting
_MOST_SHOWN = 60  # characters of a value in an error


@dataclass(frozen=True)
class Sampling:
    """How a text goes on: by up to `max_new_tokens` tokens, greedily at temperature 0, else drawn from the likeliest.

    First, to the logits of tokens: what `logit_bias` adds to each; `repetition_penalty` of what the prompt or the new
    text has (above 0 divided, else multiplied by it); `frequency_penalty` taken away for each time that the new text
    has it, and `presence_penalty` once. Then, unless the text is greedy, of the tokens the `top_k` likeliest stay (0:
    all), of them the most typical with total probability `typical_p` (1: all), of them the likeliest with total
    probability `top_p` (1: all), of them those at least `min_p` times as likely as the likeliest (0: all). The seed
    gives the same text every time, with the same engine. ConfigError for a value that is out of range.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    typical_p: float = field(default=1.0, kw_only=True)
    repetition_penalty: float = field(default=1.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    logit_bias: Mapping[int, float] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k"):
            _require(name, getattr(self, name), _is_whole(getattr(self, name), 0, 1 << 31), "a whole number, 0 or more")
        _require("seed", self.seed, _is_whole(self.seed, -(1 << 63), 1 << 64), "a whole number of 64 bits")
        finite, above = (lambda t: 0 <= t < math.inf), "a finite number, 0 or more"
        _require("temperature", self.temperature, _is_number(self.temperature, finite), above)
        _require("top_p", self.top_p, _is_number(self.top_p, lambda p: 0 < p <= 1), "above 0 and at most 1")
        _require("min_p", self.min_p, _is_number(self.min_p, lambda p: 0 <= p < 1), "at least 0 and below 1")
        _require("typical_p", self.typical_p, _is_number(self.typical_p, lambda p: 0 < p <= 1), "above 0 and at most 1")
        self._require_penalties()

    def _require_penalties(self) -> None:
        low, high = REPETITION
        _require(
            "repetition_penalty",
            self.repetition_penalty,
            _is_number(self.repetition_penalty, lambda x: low <= x <= high),
            f"between {low:g} and {high:g}",
        )
        for name in ("frequency_penalty", "presence_penalty"):
            given = getattr(self, name)
            _require(name, given, _is_number(given, lambda x: abs(x) <= MOST_PENALTY), "between -2 and 2")
        require_logit_bias("logit_bias", self.logit_bias)

    @property
    def is_penalised(self) -> bool:
        """True when tokens that were read or written change what follows."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

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

    def __post_init__(self) -> None:
        super().__post_init__()
        _require("chat", self.chat, isinstance(self.chat, bool), "true or false")
        variables = self.chat_template_variables
        are_named = variables is None or (isinstance(variables, Mapping) and all(isinstance(n, str) for n in variables))
        _require("chat_template_variables", variables, are_named, "values by name, or None")
        is_list = isinstance(self.stop, list | tuple) and all(isinstance(text, str) and text for text in self.stop)
        _require("stop", self.stop, is_list, "a list of texts that are not empty")


class GenerationKeywords(TypedDict, total=False):
    """The fields of `GenerationOptions` as keywords, for a type checker."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
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


def require_logit_bias(name: str, given: object) -> None:
    """Raise ConfigError unless it is numbers from -100 to 100 by token id."""
    holds = isinstance(given, Mapping) and all(
        _is_whole(token_id, 0, 1 << 31) and _is_number(value, lambda x: abs(x) <= MOST_BIAS)
        for token_id, value in given.items()
    )
    _require(name, given, holds, "numbers between -100 and 100 by token id, such as {50: -100}")


def _is_whole(value: object, least: int, end: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < end


def _is_number(value: object, holds: Callable[[float], bool]) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and holds(value)  # type: ignore[arg-type]


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        given = repr(value) if isinstance(value, str | bytes) else str(value)
        shown = given if len(given) <= _MOST_SHOWN else f"{given[:_MOST_SHOWN]}..."
        raise ConfigError(f"`{name}={shown}` is out of range: it must be {allowed}.")
