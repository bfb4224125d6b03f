"""How fast a model writes: the packed one as users run it, the original in its usual form.

The packed model is timed in the native runtime. Where that does not know the architecture, the same folder is timed
through transformers, and the figures say why. The original is timed through transformers, in float32. Both decode
greedily on as many threads as torch has: no sampling, no stopping, no text; medians after one warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from bitnet_train.bench.native_passes import load_native
from bitnet_train.bench.speed import DecodeSpeed, Engine
from bitnet_train.bench.timing import WARM_UP_TOKENS, Runner, timed
from bitnet_train.bench.torch_passes import ModuleRunner
from bitnet_train.runtime.native.support import reason_against

NEW_TOKENS, REPEATS = 64, 3


def packed_speed(
    folder: Path, model: PreTrainedModel, prompt_ids: Sequence[int], *, new_tokens: int = NEW_TOKENS
) -> DecodeSpeed:
    """Return `decode_speed` of the packed `folder`, which `model` has been loaded and verified from."""
    reason = reason_against(folder)
    if reason is not None:
        return decode_speed(ModuleRunner(model), prompt_ids, "torch", new_tokens=new_tokens, not_native=reason)
    runner = load_native(str(folder), torch.get_num_threads(), verify=False)
    room = max(1, runner.max_tokens - new_tokens - 1)
    return decode_speed(runner, prompt_ids[-room:], "native", new_tokens=min(new_tokens, runner.max_tokens - 2))


def original_speed(model: PreTrainedModel, prompt_ids: Sequence[int], *, new_tokens: int = NEW_TOKENS) -> DecodeSpeed:
    """Return `decode_speed` of a float model through transformers."""
    return decode_speed(ModuleRunner(model), prompt_ids, "torch", new_tokens=new_tokens)


def decode_speed(
    runner: Runner,
    prompt_ids: Sequence[int],
    engine: Engine,
    *,
    new_tokens: int = NEW_TOKENS,
    repeats: int = REPEATS,
    not_native: str | None = None,
) -> DecodeSpeed:
    """Measure greedy decoding of `new_tokens` tokens after the prompt."""
    assert new_tokens >= 1, "at least one new token"
    assert repeats >= 1, "at least one repeat"
    timed(runner, prompt_ids, WARM_UP_TOKENS)
    runs = [timed(runner, prompt_ids, new_tokens + 1) for _ in range(repeats)]
    prompt_s = statistics.median(run[0] for run in runs)
    decode_s = statistics.median(run[1] for run in runs)
    return DecodeSpeed(
        tokens_per_s=new_tokens / decode_s,
        ms_per_token=1000 * decode_s / new_tokens,
        prompt_tokens_per_s=len(prompt_ids) / prompt_s,
        num_prompt_tokens=len(prompt_ids),
        num_new_tokens=new_tokens,
        repeats=repeats,
        num_threads=torch.get_num_threads(),
        engine=engine,
        not_native=not_native,
    )
