from __future__ import annotations

import time

import pytest

from bitnet_train.bench.decode_speed import decode_speed, original_speed, packed_speed
from bitnet_train.bench.torch_passes import ModuleRunner
from bitnet_train.packed import export_packed
from bitnet_train.runtime.load import load


def test_the_figures_belong_together_and_to_the_clock(exported):
    runner = ModuleRunner(load(exported))
    start = time.perf_counter()
    speed = decode_speed(runner, [1, 2, 3, 4], "torch", new_tokens=8, repeats=3)
    elapsed = time.perf_counter() - start
    assert speed.tokens_per_s * speed.ms_per_token == pytest.approx(1000)
    assert 2 * 8 / speed.tokens_per_s < elapsed  # at least two of three runs take no less than the median
    assert (speed.num_prompt_tokens, speed.num_new_tokens, speed.repeats) == (4, 8, 3)


def test_a_packed_model_is_timed_in_the_native_runtime_and_its_original_in_torch(exported):
    model = load(exported)
    packed = packed_speed(exported, model, [1, 2, 3], new_tokens=5)
    original = original_speed(model, [1, 2, 3], new_tokens=5)
    assert packed.num_new_tokens == original.num_new_tokens == 5
    assert (packed.engine, packed.not_native) == ("native", None)
    assert (original.engine, original.not_native) == ("torch", None)
    assert packed.num_threads == original.num_threads


def test_a_prompt_longer_than_the_context_is_timed_by_its_end(exported):
    assert 0 < packed_speed(exported, load(exported), [1] * 300).num_prompt_tokens < 256


@pytest.mark.slow
def test_what_the_native_runtime_does_not_take_is_timed_in_torch_and_says_why(make_trained, tmp_path):
    folder = tmp_path / "out"
    export_packed(make_trained("gpt2"), None, folder, {})
    speed = packed_speed(folder, load(folder), [1, 2, 3], new_tokens=5)
    assert speed.engine == "torch"
    assert "GPT2" in speed.not_native
