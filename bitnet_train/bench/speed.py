"""How fast greedy decoding was, as a figure to keep; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bitnet_train.facts import LEFT_OUT

Engine = Literal["native", "torch"]


@dataclass(frozen=True)
class DecodeSpeed:
    """Medians over `repeats` runs: new tokens per second, milliseconds per new token, prompt tokens per second.

    `engine` is None in files of before there was a choice: torch computed all. `not_native` says why it computed a
    packed model.
    """

    tokens_per_s: float
    ms_per_token: float
    prompt_tokens_per_s: float
    num_prompt_tokens: int
    num_new_tokens: int
    repeats: int
    num_threads: int | None = None
    engine: Engine | None = field(default=None, metadata=LEFT_OUT)
    not_native: str | None = None

    @property
    def computed_by(self) -> Engine:
        """What computed."""
        return self.engine or "torch"

    def describe_engine(self) -> str:
        """Return what computed, and its threads where they are known: `native, 2 threads`."""
        if self.num_threads is None:
            return self.computed_by
        return f"{self.computed_by}, {self.num_threads} thread{'s' * (self.num_threads > 1)}"
