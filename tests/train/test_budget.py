from __future__ import annotations

import pytest
import torch
from tiny_run import rows, tiny_module, trained_tensors

from bitnet_train.train import budget
from bitnet_train.train.budget import Estimate
from bitnet_train.train.rng import generator_states


def test_minutes_become_steps_rounded_down_and_at_least_one() -> None:
    assert budget.steps_of_minutes(2.0, 1.1) == 109
    assert budget.steps_of_minutes(0.001, 5.0) == 1


def test_timing_changes_no_weight_and_no_random_number() -> None:
    module = tiny_module()
    weights, states = trained_tensors(module), generator_states()
    seconds = budget.time_step(module, rows(0), "fp32", "cpu")
    assert seconds > 0.0
    after, later = trained_tensors(module), generator_states()
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert torch.equal(states["torch"], later["torch"])
    assert states["numpy"] == later["numpy"]
    assert all(p.grad is None for p in module.parameters())


def test_only_runs_long_enough_are_timed_for_show() -> None:
    assert not budget.is_cheap_to_time(66)
    assert budget.is_cheap_to_time(67)


def test_the_memory_is_the_sum_of_what_is_certain() -> None:
    module = tiny_module()
    student = sum(p.numel() for p in module.student.parameters())
    trainable = sum(p.numel() for p in module.student.parameters() if p.requires_grad)
    teacher = sum(p.numel() for p in module.teacher.parameters())
    assert budget.memory_bytes(module, 10) == 4 * (student + teacher + 3 * trainable + 3 * 10 * 64)


def test_the_line_for_people_names_minutes_only_where_measured() -> None:
    assert "minutes" not in Estimate(10, 4000, 10**9).describe()
    said = Estimate(10, 4000, 10**9, 6.0).describe()
    assert said.startswith("10 steps, at most 4,000 tokens, about 1 minutes (6 s a step, measured); 1.00 GB")


def test_a_field_that_was_not_asked_for_is_none() -> None:
    assert Estimate(10, 4000, 10**9).minutes is None
    assert Estimate(10, 4000, 10**9, 6.0).minutes == pytest.approx(1.0)
