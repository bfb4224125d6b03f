from __future__ import annotations

import time

import pytest

from bitnet_train.runtime.bench import decode_speed
from bitnet_train.runtime.load import load


def test_the_figures_belong_together_and_to_the_clock(exported):
    model = load(exported)
    start = time.perf_counter()
    speed = decode_speed(model, [1, 2, 3, 4], new_tokens=8, repeats=3)
    elapsed = time.perf_counter() - start
    assert speed.tokens_per_s * speed.ms_per_token == pytest.approx(1000)
    assert 2 * 8 / speed.tokens_per_s < elapsed  # at least two of three runs take no less than the median
    assert (speed.num_prompt_tokens, speed.num_new_tokens, speed.repeats) == (4, 8, 3)
    assert set(speed.to_dict()) >= {"tokens_per_s", "ms_per_token", "prompt_tokens_per_s", "num_threads"}
