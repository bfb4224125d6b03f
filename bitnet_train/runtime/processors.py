"""`Sampling` as logits processors of transformers, in the order of the native sampler (`model/sampler.h`).

    logit bias, repetition, frequency and presence penalty      float32, the same floats as natively
    temperature, top-k, typical, top-p, min-p                   transformers' own

transformers has its own order, in which typical comes last; so all of them are handed over, and none is set by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from bitnet_train.runtime.generation import Sampling


class _Bias(LogitsProcessor):
    """Adds a number to the logits of some tokens."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._ids, self._values = list(bias), [float(value) for value in bias.values()]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        scores[:, self._ids] += scores.new_tensor(self._values)
        return scores


class _Counted(LogitsProcessor):
    """Frequency and presence penalties of the tokens after the first `num_prompt_tokens`; one text."""

    def __init__(self, frequency: float, presence: float, num_prompt_tokens: int) -> None:
        self._frequency, self._presence, self._first = frequency, presence, num_prompt_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        new: Tensor = input_ids[0, self._first :]
        drawn, times = new.unique(return_counts=True)
        scores = scores.clone()
        scores[0, drawn] -= times.to(scores.dtype) * self._frequency
        scores[0, drawn] -= self._presence
        return scores


def processors(sampling: Sampling, num_prompt_tokens: int) -> LogitsProcessorList:
    """Return what the logits [1, vocab] of a text go through before a token is taken."""
    chosen = LogitsProcessorList()
    if sampling.logit_bias:
        chosen.append(_Bias(sampling.logit_bias))
    if sampling.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.frequency_penalty or sampling.presence_penalty:
        chosen.append(_Counted(sampling.frequency_penalty, sampling.presence_penalty, num_prompt_tokens))
    if sampling.is_greedy:
        return chosen
    chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.typical_p < 1:
        chosen.append(TypicalLogitsWarper(float(sampling.typical_p)))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(float(sampling.top_p)))
    if sampling.min_p:
        chosen.append(MinPLogitsWarper(float(sampling.min_p)))
    return chosen
