"""What is said before the first step where a machine is far slower than the one a recipe was measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import house
from bitnet_train.run import expectation
from bitnet_train.train.loop.budget import Estimate
from bitnet_train.train.loop.machine import Arithmetic

EVEN, IMITATED = Arithmetic("fp32", 1.0, 1.2), Arithmetic("bf16", 1.0, 40.0)


def quickstart(*words: str) -> Config:
    return compose("quickstart", words).config


def estimate(tokens_per_s: float) -> Estimate:
    return Estimate(600, 614_400, 10**9, 1024 / tokens_per_s)


def measured_tokens_per_s() -> float:
    train = json.loads((house() / "recipes" / "results" / "quickstart.json").read_text())["train"]
    return train["tokens"] / train["seconds"]


def test_a_run_that_takes_far_longer_than_its_result_says_why_and_what_to_set() -> None:
    told = expectation.warning(quickstart(), estimate(measured_tokens_per_s() / 30), IMITATED)
    assert told is not None
    assert "`trainer.precision=auto`" in told
    assert "--quick" in told
    assert "`trainer.max_minutes`" in told


def test_a_run_about_as_fast_as_its_result_says_nothing() -> None:
    assert expectation.warning(quickstart(), estimate(measured_tokens_per_s() / 2), EVEN) is None
    assert expectation.warning(quickstart(), Estimate(600, 614_400, 10**9), EVEN) is None, "nothing was timed"


def test_a_run_that_was_given_its_minutes_takes_them() -> None:
    assert expectation.warning(quickstart("trainer.max_minutes=1"), estimate(1.0), IMITATED) is None


def test_another_model_or_an_own_recipe_is_not_compared(tmp_path: Path) -> None:
    other = quickstart(f"model.source={tmp_path / 'larger'}")
    assert expectation.warning(other, estimate(1.0), EVEN) is None
    own = changed(quickstart(), {"recipe": "my_recipe"})
    assert expectation.warning(own, estimate(1.0), EVEN) is None


def test_every_known_cause_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    config = quickstart("trainer.num_threads=2")
    assert ["`trainer.precision=auto`" in told for told in expectation.causes(config, IMITATED, None)] == [True, False]
    assert "2 of 8 CPU threads" in expectation.causes(config, EVEN, None)[0]
    assert "Other programs" in expectation.causes(quickstart(), EVEN, 4.0)[0]
    assert expectation.causes(quickstart(), EVEN, 0.1) == [f"This processor is slower ({EVEN.describe()})."]
