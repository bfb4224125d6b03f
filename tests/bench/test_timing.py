from __future__ import annotations

import time

import pytest

from bitnet_train.bench.timing import Workload, measure, measure_contexts


class Clockwork:
    """A runner of known speed: so many seconds for each prompt token, so many for each new one."""

    vocab_size = 50

    def __init__(self, prompt_s: float, token_s: float, missing: int = 0) -> None:
        self.prompt_s, self.token_s, self.missing = prompt_s, token_s, missing
        self.asked: list[tuple[list[int], int]] = []

    def run(self, prompt_ids, new_tokens, on_token) -> None:
        self.asked.append((list(prompt_ids), new_tokens))
        time.sleep(self.prompt_s * len(prompt_ids))
        for index in range(new_tokens - self.missing):
            time.sleep(self.token_s if index else 0)
            on_token(index)


def test_prefill_decode_and_contexts_are_timed_apart():
    runner = Clockwork(prompt_s=0.004, token_s=0.002)
    workload = Workload(prompt_tokens=16, new_tokens=10, repeats=3, contexts=(2, 8))
    timings, contexts = measure(runner, workload), measure_contexts(runner, workload)
    assert len(timings.prefill_s) == len(timings.decode_s) == 3
    assert min(timings.prefill_s) >= 0.064  # sixteen prompt tokens, and a sleep never ends early
    assert min(timings.decode_s) >= 0.004 + 9 * 0.002  # one prompt token, nine more steps
    assert set(contexts) == {2, 8}
    assert min(contexts.values()) >= 0.002


def test_every_run_has_the_same_tokens_of_the_vocabulary_and_the_lengths_asked_for():
    first, second = Clockwork(0, 0), Clockwork(0, 0)
    for runner in (first, second):
        workload = Workload(prompt_tokens=5, new_tokens=7, repeats=2, contexts=(9,))
        measure(runner, workload)
        measure_contexts(runner, workload)
    assert first.asked == second.asked
    assert all(0 <= token < 50 for prompt, _ in first.asked for token in prompt)
    warm_up, *timed = [(len(prompt), new_tokens) for prompt, new_tokens in first.asked]
    assert warm_up[0] == 5
    assert timed == [(5, 1), (1, 7), (5, 1), (1, 7), (9, 8)]


def test_a_runner_that_stops_early_is_no_measurement():
    with pytest.raises(AssertionError, match="instead of"):
        measure(Clockwork(0, 0, missing=1), Workload(prompt_tokens=2, new_tokens=4, repeats=1))
