"""What a batcher needs of a model: sequences, one step of many of them, samplers. The native runtime gives it all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.tokens import Tokens


@dataclass(frozen=True)
class Facts:
    """What is fixed of a loaded model: `context` tokens at most, ids below `vocab`, the tokens that end a text."""

    name: str
    context: int
    vocab: int
    stop_ids: frozenset[int]


class Engine(ABC):
    """Abstract: a model and its tokenizer, for one thread. A sequence has `length`, `bytes`, `truncate` and `copy`."""

    facts: Facts
    tokens: Tokens

    @abstractmethod
    def new_sequence(self) -> Any:
        """Return a sequence that has read nothing."""

    @abstractmethod
    def forward(self, sequences: Sequence[Any], token_ids: Sequence[list[int]], *, all_logits: bool) -> np.ndarray:
        """Append tokens to each; logits float32 [sequences, vocab] after the last of each, or [all tokens, vocab].

        A sequence has not changed when this raises.
        """

    def draw(self, samplers: Sequence[Any], logits: np.ndarray) -> list[int]:
        """Return the next token of each row of logits [S, vocab]."""
        from bitnet_train.kernels import _core

        extension: Any = _core
        return extension.draw_rows(list(samplers), logits).tolist()


class NativeEngine(Engine):
    """The native runtime: one pass over the weights for all sequences."""

    def __init__(self, model: NativeModel) -> None:
        self._core, self._max_tokens, self._cache_dtype = model.core, model.max_tokens, model.cache_dtype
        self.tokens = model.tokens
        self.facts = Facts("native", model.max_tokens, model.architecture.sizes.vocab, frozenset(model.stop_ids))

    def new_sequence(self) -> Any:
        """Return a sequence that has read nothing."""
        return self._core.new_sequence(self._max_tokens, self._cache_dtype)

    def forward(self, sequences: Sequence[Any], token_ids: Sequence[list[int]], *, all_logits: bool) -> np.ndarray:
        """Append tokens to each sequence, and return logits."""
        return self._core.forward(list(sequences), [np.asarray(ids, np.int32) for ids in token_ids], all_logits)
