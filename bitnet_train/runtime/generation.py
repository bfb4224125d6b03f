"""What continuing a prompt takes and gives, the same for both engines. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else drawn from the likeliest.

    Of the tokens, the `top_k` likeliest stay (0: all), of them the likeliest with total probability `top_p` (1: all),
    of them those at least `min_p` times as likely as the likeliest (0: all). The seed gives the same text every time,
    with the same engine.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, 0 <= self.temperature < float("inf"), "a finite number, 0 or more")
        _require("top_k", self.top_k, 0 <= self.top_k < 1 << 31, "a whole number, 0 or more")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _require("min_p", self.min_p, 0 <= self.min_p < 1, "at least 0 and below 1")

    @property
    def is_greedy(self) -> bool:
        """True when always the likeliest token is taken."""
        return self.temperature == 0


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
