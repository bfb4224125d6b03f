from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.bench.processes import KINDS, WARM_UP_STEPS, speed, summary


def test_a_speed_is_the_median_of_the_steps_after_the_first_ones(tmp_path: Path) -> None:
    steps = [{"step": step, "loss": 1.0, "tokens_per_s": 1.0} for step in range(1, WARM_UP_STEPS + 1)]
    steps += [{"step": WARM_UP_STEPS + at, "loss": 1.0, "tokens_per_s": fast} for at, fast in enumerate((7, 9, 50), 1)]
    held_out = {"step": WARM_UP_STEPS + 3, "val_ce": 2.0}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*steps, held_out]))
    assert speed(tmp_path / "metrics.jsonl") == 9


def test_a_ratio_is_made_within_a_round_before_rounds_are_compared() -> None:
    rounds = [{"one": one, "wide": one, "two": two} for one, two in ((100.0, 150.0), (50.0, 200.0), (80.0, 100.0))]
    found = {row["kind"]: row for row in summary(rounds)}
    assert found.keys() == KINDS.keys()
    assert found["one"]["ratio"] == 1.0
    assert found["two"]["tokens_per_s"] == 150.0
    assert found["two"]["ratio"] == pytest.approx(1.5), "of 1.5, 4 and 1.25; that of the medians is 1.875"
