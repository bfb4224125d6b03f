"""A model of transformers behind the same interface, one sequence after another: what the native runtime does not take.

Keys and values are a `DynamicCache` a sequence. A cache that cannot be cut (of a sliding window, of a state space) is
never shared: it is begun anew. Float sums may round differently with the part of a prompt that is read at once, so
unlike the native runtime a text may differ in its last digits with what was known of its prompt already.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from bitnet_train.model.cached_step import cached_step
from bitnet_train.model.config_fields import text_config, vocab_size
from bitnet_train.packed.end_tokens import end_tokens
from bitnet_train.runtime.native.tokens import Tokens
from bitnet_train.serve.worker.engine import Engine, Facts

_NO_LIMIT = 1 << 20


class TorchSequence:
    """The tokens that a model of transformers has read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.cache: Any = DynamicCache(config=model.config)
        self.length = 0

    @property
    def bytes(self) -> int:
        """Bytes of keys and values."""
        return sum(tensor.nbytes for layer in self.cache.layers for tensor in _tensors(layer))

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on; all of them where the cache cannot be cut."""
        if all(type(layer) is DynamicLayer for layer in self.cache.layers):
            for layer in self.cache.layers:
                if layer.is_initialized:
                    layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
            self.length = length
        else:
            self.cache, self.length = DynamicCache(config=self._model.config), 0

    def copy(self) -> TorchSequence:
        """Return a sequence that goes on from here by itself."""
        other = TorchSequence(self._model)
        other.cache, other.length = copy.deepcopy(self.cache), self.length
        return other


class TorchEngine(Engine):
    """A causal LM of transformers."""

    def __init__(self, model: PreTrainedModel, tokens: Tokens, most_tokens: int | None = None) -> None:
        self._model, self.tokens = model, tokens
        self._keeps_logits = "logits_to_keep" in signature(model.forward).parameters
        self.facts = Facts("torch", _context(model, most_tokens), vocab_size(model), frozenset(_ends(model)))

    def new_sequence(self) -> TorchSequence:
        """Return a sequence that has read nothing."""
        return TorchSequence(self._model)

    def forward(self, sequences: Sequence[Any], token_ids: Sequence[list[int]], *, all_logits: bool) -> np.ndarray:
        """Append tokens to each sequence, and return logits."""
        lengths = [sequence.length for sequence in sequences]
        try:
            rows = [self._append(one, ids, all_logits) for one, ids in zip(sequences, token_ids, strict=True)]
        except BaseException:
            for sequence, length in zip(sequences, lengths, strict=True):
                sequence.truncate(length)
            raise
        return np.ascontiguousarray(np.concatenate(rows))

    def _append(self, sequence: TorchSequence, ids: list[int], all_logits: bool) -> np.ndarray:
        keep = {} if all_logits or not self._keeps_logits else {"logits_to_keep": 1}
        with torch.inference_mode():
            output, cache = cached_step(self._model, torch.tensor([ids]), sequence.cache, **keep)
        sequence.cache, sequence.length = cache, sequence.length + len(ids)
        return (output.logits[0] if all_logits else output.logits[0, -1:]).float().numpy()


def _tensors(layer: Any) -> list[torch.Tensor]:
    return [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]


def _context(model: PreTrainedModel, most_tokens: int | None) -> int:
    given = getattr(text_config(model.config), "max_position_embeddings", None)
    known = given if isinstance(given, int) and given > 0 else _NO_LIMIT
    return min(known, most_tokens or known)


def _ends(model: PreTrainedModel) -> tuple[int, ...]:
    settings = {"eos_token_id": getattr(model.generation_config, "eos_token_id", None)}
    return end_tokens(settings, {"eos_token_id": getattr(text_config(model.config), "eos_token_id", None)})
