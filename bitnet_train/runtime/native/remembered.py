"""The text that a native model still knows: its tokens, and the keys and values of their attention.

A prompt starts from the longest beginning that it shares with that text, and only the rest is computed. They are the
same numbers either way, because a token's keys depend on the tokens before it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitnet_train.runtime.generation import Sampling
from bitnet_train.runtime.native.sampler import new_sampler


class Remembered:
    """A `_core` sequence and `known`, the tokens whose keys and values it holds; for one thread at a time."""

    def __init__(self, core: Any, max_tokens: int, cache_dtype: str = "float32") -> None:
        self._core, self._max_tokens = core, max_tokens
        self.sequence: Any = core.new_sequence(max_tokens, cache_dtype)
        self.known: list[int] = []

    def go_on(
        self,
        prompt: list[int],
        sampling: Sampling,
        stop_ids: Sequence[int],
        on_token: Callable[[int], object] | None,
    ) -> list[int]:
        """Return the ids that continue a checked prompt, and remember both; `on_token` may end it by True."""
        keep = min(common_length(self.known, prompt), len(prompt) - 1)
        self.sequence.truncate(keep)
        made: list[int] = []

        def ends(token_id: int) -> bool:
            made.append(token_id)
            return on_token is not None and on_token(token_id) is True

        try:
            self._core.generate(
                self.sequence,
                np.asarray(prompt[keep:], np.int32),
                max_new_tokens=sampling.max_new_tokens,
                sampler=new_sampler(sampling, prompt),
                stop_ids=[int(token_id) for token_id in stop_ids],
                on_token=ends,
            )
        finally:
            self.known = [*prompt, *made][: self.sequence.length]
        return made

    def shared(self, prompt: Sequence[int]) -> int:
        """Return how many tokens of `prompt` are known."""
        return common_length(self.known, prompt)

    def replace(self, token_ids: list[int], stored: Sequence[np.ndarray]) -> None:
        """Know these tokens instead, if they fit; `stored` as `beginning` returns it."""
        if len(token_ids) <= self._max_tokens:
            self.sequence.load(*stored)
            self.known = token_ids

    def beginning(self, num_tokens: int) -> list[np.ndarray]:
        """Return keys and values [layers, kv_heads, L, head_dim] of the first tokens, at most `num_tokens` of them.

        They are float32, or int8 and then followed by the scales of both, float32 [layers, kv_heads, L].
        """
        sequence = self.sequence.copy()
        sequence.truncate(min(num_tokens, sequence.length))
        return sequence.keys_values()

    def forget(self) -> None:
        """Give back the memory."""
        self.sequence.truncate(0)
        self.known = []


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
