"""The share of codes that changed: a figure of the steps that are looked at, the same over a resume."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from bitnet_train.train.loop.sign_flips import SignFlips
from bitnet_train.train.trackers.tracking import METRICS_FILE
from tests.fixtures.tiny_run import DieAt, run, tiny_module


def flips(root: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (root / METRICS_FILE).read_text().splitlines()]
    return {row["step"]: row["flips"] for row in rows if "flips" in row}


def test_flips_are_told_at_steps_that_are_looked_at_and_a_resume_tells_the_same(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(whole, tiny_module(steps=5, lr=0.05), measuring=[SignFlips(2, 0)], validate_every_steps=2)
    with pytest.raises(SystemExit):
        run(
            halves,
            tiny_module(steps=5, lr=0.05),
            measuring=[SignFlips(2, 0)],
            callbacks=[DieAt(2, signal.SIGTERM)],
            validate_every_steps=2,
        )
    run(halves, tiny_module(steps=5, lr=0.05), measuring=[SignFlips(2, 0)], validate_every_steps=2, resume="auto")
    assert list(flips(whole)) == [2, 4, 5]
    assert flips(halves) == flips(whole)
    assert 0 < flips(whole)[2] < flips(whole)[4] < 1
