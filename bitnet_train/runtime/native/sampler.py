"""What draws the tokens of one text: the C++ sampler with the numbers of `Sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitnet_train.runtime.generation import Sampling

_SEEDS = 1 << 64


def new_sampler(sampling: Sampling, prompt: Sequence[int]) -> Any:
    """Return a `_core.Sampler` for a text that begins with the token ids of `prompt`, which penalties look at."""
    from bitnet_train.kernels import _core

    extension: Any = _core
    return extension.Sampler(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        typical_p=sampling.typical_p,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        logit_bias=dict(sampling.logit_bias),
        seed=sampling.seed % _SEEDS,
        prompt=list(prompt) if sampling.is_penalised else [],
    )
