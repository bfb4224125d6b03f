from __future__ import annotations

import time

import pytest
import torch

from bitnet_train.train.loop import budget
from bitnet_train.train.loop.budget import Estimate
from bitnet_train.train.loop.rng import generator_states
from tests.fixtures.tiny_run import rows, tiny_module, trained_tensors


def test_minutes_become_steps_rounded_down_and_at_least_one() -> None:
    assert budget.steps_of_minutes(2.0, 1.1) == 109
    assert budget.steps_of_minutes(0.001, 5.0) == 1


def test_timing_changes_no_weight_and_no_random_number() -> None:
    module = tiny_module()
    weights, states = trained_tensors(module), generator_states()
    timed = budget.time_step(module, rows(0), "fp32", "cpu")
    assert 0.0 < timed.fastest_s <= timed.step_s <= timed.slowest_s
    after, later = trained_tensors(module), generator_states()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert torch.equal(states["torch"], later["torch"])
    assert states["numpy"] == later["numpy"]
    assert all(p.grad is None for p in module.parameters())


def test_a_step_is_timed_several_times_after_one_that_does_not_count() -> None:
    naps = iter([0.2, *[0.001] * budget.REPEATS])  # the first finds memory and kernels
    seconds = budget._timed(lambda: time.sleep(next(naps)))
    assert len(seconds) == budget.REPEATS >= 3
    assert min(seconds) < 0.2
    assert next(naps, None) is None


def test_only_runs_long_enough_are_timed_for_show() -> None:
    assert not budget.is_cheap_to_time(166)
    assert budget.is_cheap_to_time(167)
    assert budget.is_cheap_to_time(42, micro_batches_of_step=4), "a quarter of a step is timed then"


def test_the_line_for_people_names_a_range_and_only_where_measured() -> None:
    assert "timed" not in Estimate(10, 4000, 10**9).describe()
    said = Estimate(100, 4000, 10**9, 6.0, 5.0, 7.0).describe()
    assert said.startswith("100 steps, at most 4,000 tokens, 8 min to 12 min (6 s a step, timed); 1.00 GB")
    assert "about 10 min" in Estimate(100, 4000, 10**9, 6.0, 6.0, 6.0).describe()
    assert "about 10 min" in Estimate(100, 4000, 10**9, 6.0).describe(), "as a run of before there was a range kept it"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(4.2, "4 s"), (480, "8 min"), (6600, "1 h 50 min"), (7200, "2 h"), (144_000, "40 h"), (273_600, "3 days 4 h")],
)
def test_a_duration_is_said_in_hours_and_minutes(seconds: float, said: str) -> None:
    assert budget.spoken(seconds) == said


def test_a_field_that_was_not_asked_for_is_none() -> None:
    assert Estimate(10, 4000, 10**9).minutes is None
    assert Estimate(10, 4000, 10**9, 6.0).minutes == pytest.approx(1.0)
