"""Tokens per second of greedy decoding with a KV cache, one sequence, prompt and new tokens timed apart.

The decode loop is written out here, so that the figure is of the model alone: no sampling, no stopping, no text.
Medians over repeats after one warm-up; every machine of this kind is noisy, and the best run is not a measurement.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


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
    prompt = torch.as_tensor(prompt_ids, dtype=torch.int64, device=model.device).reshape(1, -1)
    _decode(model, prompt, min(new_tokens, 4))
    runs = [_decode(model, prompt, new_tokens) for _ in range(repeats)]
    prompt_s = statistics.median(run[0] for run in runs)
    decode_s = statistics.median(run[1] for run in runs)
    return DecodeSpeed(
        tokens_per_s=new_tokens / decode_s,
        ms_per_token=1000 * decode_s / new_tokens,
        prompt_tokens_per_s=prompt.shape[1] / prompt_s,
        num_prompt_tokens=prompt.shape[1],
        num_new_tokens=new_tokens,
        repeats=repeats,
        num_threads=torch.get_num_threads(),
    )


@torch.inference_mode()
def _decode(model: PreTrainedModel, prompt: Tensor, new_tokens: int) -> tuple[float, float]:
    """Return the seconds for the prompt and for `new_tokens` single-token steps after it."""
    start = time.perf_counter()
    output: Any = model(prompt, use_cache=True)
    token = output.logits[:, -1:].argmax(-1)
    middle = time.perf_counter()
    for _ in range(new_tokens):
        output = model(token, past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
    return middle - start, time.perf_counter() - middle
