from __future__ import annotations

from itertools import pairwise

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.schedules import HARDNESS_SCHEDULES, LR_SCHEDULES, ScheduleConfig, hardness, lr_factor

STEPS = 1000


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_every_rate_warms_up_linearly_to_the_peak_and_never_rises_again(name: str) -> None:
    config = ScheduleConfig(lr=name, warmup_fraction=0.1, final_lr_fraction=0.2)
    factors = [lr_factor(step, STEPS, config) for step in range(STEPS)]
    assert factors[0] == 1 / 100
    assert factors[49] == 0.5
    assert factors[99] == factors[100] == 1.0
    assert all(earlier >= later for earlier, later in pairwise(factors[100:]))
    assert all(0.2 <= factor <= 1.0 for factor in factors[100:])


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.2), ("linear", 0.2), ("constant", 1.0), ("wsd", 0.2)])
def test_rates_end_at_the_final_fraction(name: str, last: float) -> None:
    # one step before the end: the largest slope is pi/2 / 900 steps of (1 - 0.2) for cosine, 1/180 * 0.8 for wsd
    assert lr_factor(STEPS - 1, STEPS, ScheduleConfig(lr=name, final_lr_fraction=0.2)) == pytest.approx(
        last, abs=0.8 / 180
    )


def test_wsd_stays_at_the_peak_until_its_decay() -> None:
    config = ScheduleConfig(lr="wsd", warmup_fraction=0.0, decay_fraction=0.25)
    assert [lr_factor(step, 100, config) for step in (0, 50, 75)] == [1.0, 1.0, 1.0]
    assert lr_factor(88, 100, config) == pytest.approx(12 / 25)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert lr_factor(50, 100, ScheduleConfig(warmup_fraction=0.0)) == pytest.approx(0.5)


def test_tanh_hardens_geometrically_and_stays_hard() -> None:
    config = ScheduleConfig(hardness="tanh", soft_fraction=0.4)
    assert hardness(0, STEPS, config) == pytest.approx(0.3)
    assert hardness(200, STEPS, config) == pytest.approx((0.3 * 100) ** 0.5)
    assert {hardness(step, STEPS, config) for step in (400, 700, 999)} == {100.0}


def test_lambda_rises_linearly_to_one() -> None:
    config = ScheduleConfig(hardness="lambda", soft_fraction=0.5)
    assert [hardness(step, 100, config) for step in (0, 25, 50, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_hard_leaves_the_quantiser_alone() -> None:
    assert hardness(0, STEPS, ScheduleConfig()) is None


@pytest.mark.parametrize("name", ["tanh", "lambda"])
def test_without_soft_steps_every_schedule_is_hard_at_once(name: str) -> None:
    assert hardness(0, STEPS, ScheduleConfig(hardness=name, soft_fraction=0.0)) in (1.0, 100.0)


@pytest.mark.parametrize("name", [*LR_SCHEDULES])
def test_one_step_is_a_run(name: str) -> None:
    assert 0.0 < lr_factor(0, 1, ScheduleConfig(lr=name)) <= 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": "cosin"}, r"`schedule\.lr=cosin`.*Did you mean `cosine`"),
        ({"hardness": "tahn"}, r"`schedule\.hardness=tahn`.*Did you mean `tanh`"),
        ({"hardness": "xyzzy"}, ", ".join(HARDNESS_SCHEDULES)),
        ({"warmup_fraction": 1.5}, r"`schedule\.warmup_fraction=1\.5` is out of range: it must be between 0 and 1"),
        ({"tanh_start": 0.0}, r"`schedule\.tanh_start=0\.0`"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ScheduleConfig(**options)
