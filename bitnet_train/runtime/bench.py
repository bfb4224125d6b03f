"""Tokens per second of greedy decoding with a Hugging Face model, in this process.

The decode loop is written out here, so that the figure is of the model alone: no sampling, no stopping, no text.
Medians over repeats after one warm-up; every machine of this kind is noisy, and the best run is not a measurement.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitnet_train.runtime.timing import WARM_UP_TOKENS, timed


class ModuleRunner:
    """A Hugging Face model, packed or float, as a `timing.Runner`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        supported = signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in supported else {}
        self.vocab_size: int = model.config.get_text_config().vocab_size

    @torch.inference_mode()
    def run(self, prompt_ids: Sequence[int], new_tokens: int, on_token: Callable[[int], object]) -> None:
        """See `timing.Runner`."""
        step: Tensor = torch.tensor([list(prompt_ids)], device=self._model.device)
        cache = None
        for _ in range(new_tokens):
            output: Any = self._model(step, past_key_values=cache, use_cache=True, **self._options)
            step, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            on_token(int(step))


@dataclass(frozen=True)
class DecodeSpeed:
    """Medians over `repeats` runs: new tokens per second, milliseconds per new token, prompt tokens per second."""

    tokens_per_s: float
    ms_per_token: float
    prompt_tokens_per_s: float
    num_prompt_tokens: int
    num_new_tokens: int
    repeats: int
    num_threads: int

    def to_dict(self) -> dict[str, float]:
        """Return the figures for a JSON file."""
        return asdict(self)


def decode_speed(
    model: PreTrainedModel, prompt_ids: Tensor | list[int], *, new_tokens: int = 64, repeats: int = 3
) -> DecodeSpeed:
    """Measure greedy decoding of `new_tokens` tokens after the prompt `prompt_ids` (int64 [L] or a list)."""
    assert new_tokens >= 1, "at least one new token"
    assert repeats >= 1, "at least one repeat"
    runner, prompt = ModuleRunner(model), torch.as_tensor(prompt_ids).reshape(-1).tolist()
    timed(runner, prompt, WARM_UP_TOKENS)
    runs = [timed(runner, prompt, new_tokens + 1) for _ in range(repeats)]
    prompt_s = statistics.median(run[0] for run in runs)
    decode_s = statistics.median(run[1] for run in runs)
    return DecodeSpeed(
        tokens_per_s=new_tokens / decode_s,
        ms_per_token=1000 * decode_s / new_tokens,
        prompt_tokens_per_s=len(prompt) / prompt_s,
        num_prompt_tokens=len(prompt),
        num_new_tokens=new_tokens,
        repeats=repeats,
        num_threads=torch.get_num_threads(),
    )
