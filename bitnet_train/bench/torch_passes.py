"""Greedy decoding with a Hugging Face model, in this process, to be timed.

The decode loop is written out here, so that the figure is of the model alone: no sampling, no stopping, no text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitnet_train.model.cached_step import cached_step
from bitnet_train.model.config_fields import vocab_size


class ModuleRunner:
    """A Hugging Face model, packed or float, as a `timing.Runner`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        supported = signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in supported else {}
        self.vocab_size: int = vocab_size(model)

    @torch.inference_mode()
    def run(self, prompt_ids: Sequence[int], new_tokens: int, on_token: Callable[[int], object]) -> None:
        """See `timing.Runner`."""
        step: Tensor = torch.tensor([list(prompt_ids)], device=self._model.device)
        cache = None
        for _ in range(new_tokens):
            output, cache = cached_step(self._model, step, cache, **self._options)
            step = output.logits[:, -1:].argmax(-1)
            on_token(int(step))
