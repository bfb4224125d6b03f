"""Timing anything that decodes greedily, one sequence, as `llama-bench` does, so that figures compare.

    prefill    `prompt_tokens` into an empty cache at once, and the first token after them
    decode     `new_tokens` steps of one token, from a prompt of one token
    context    `new_tokens` steps after a prompt of each of the `contexts`

A figure is of the model alone: no sampling, no stopping, no text. All repeats are kept, after one warm-up that is not.
No torch here: a process that times the native runtime does without it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

_SEED = 20240229
WARM_UP_TOKENS = 4


class Runner(Protocol):
    """Something that decodes greedily."""

    vocab_size: int

    def run(self, prompt_ids: Sequence[int], new_tokens: int, on_token: Callable[[int], object]) -> None:
        """Compute the prompt afresh and hand over `new_tokens` likeliest tokens, each as soon as it is known."""
        ...


@dataclass(frozen=True)
class Workload:
    """What to time; lengths in tokens."""

    prompt_tokens: int = 128
    new_tokens: int = 64
    repeats: int = 5
    contexts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Seconds of every repeat: the whole prefill, the whole decode."""

    prefill_s: tuple[float, ...]
    decode_s: tuple[float, ...]


def measure(runner: Runner, workload: Workload) -> Timings:
    """Time prefill and decode of a runner in turn, after a warm-up."""
    assert min(workload.prompt_tokens, workload.new_tokens, workload.repeats) >= 1, "at least one of each"
    prompt = _token_ids(runner.vocab_size, workload.prompt_tokens)
    timed(runner, prompt, WARM_UP_TOKENS)
    prefill, decode = [], []
    for _ in range(workload.repeats):
        prefill.append(timed(runner, prompt, 1)[0])
        decode.append(sum(timed(runner, prompt[:1], workload.new_tokens)))
    return Timings(tuple(prefill), tuple(decode))


def measure_contexts(runner: Runner, workload: Workload) -> dict[int, float]:
    """Return seconds per new token after a prompt of each of the contexts, each timed once."""
    prompt = _token_ids(runner.vocab_size, max(workload.contexts, default=0))
    return {
        length: timed(runner, prompt[:length], workload.new_tokens + 1)[1] / workload.new_tokens
        for length in workload.contexts
    }


def timed(runner: Runner, prompt: Sequence[int], new_tokens: int) -> tuple[float, float]:
    """Return the seconds to the first new token and from there to the last."""
    stamps: list[float] = []
    start = time.perf_counter()
    runner.run(prompt, new_tokens, lambda _token: stamps.append(time.perf_counter()))
    assert len(stamps) == new_tokens, f"{len(stamps)} tokens instead of {new_tokens}"
    return stamps[0] - start, stamps[-1] - stamps[0]


def _token_ids(vocab_size: int, count: int) -> list[int]:
    """Return any tokens; the same ones every time."""
    generator = random.Random(_SEED)
    return [generator.randrange(vocab_size) for _ in range(count)]
