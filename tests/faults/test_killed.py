"""F10 to F13: SIGKILL at any moment. The newest whole checkpoint is taken up, and what was half-written goes away."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Warm
from tests.faults.injected import Signal
from tests.faults.runs import (
    BEGUN,
    CHECKPOINT,
    MICRO_STEP,
    STEP,
    STEPS,
    VALIDATION,
    copy_of,
    left_over,
    resumes_to,
    steps_of,
)

SEEDS = range(5)
FLUSH = "os:fsync"  # between a file that is written and its name
MOMENTS = {  # how often each comes until the end: one is drawn
    "step": (STEP, STEPS - BEGUN),
    "mid-accumulation": (MICRO_STEP, 2 * (STEPS - BEGUN)),
    "validation": (VALIDATION, 2),
    "checkpoint": (FLUSH, 12),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MOMENTS)
def test_a_killed_run_resumes_bit_for_bit(
    name: str, seed: int, warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    moment, times = MOMENTS[name]
    run_dir, number = copy_of(begun, tmp_path), random.Random(f"{name} {seed}").randint(1, times)
    done = warm.run(tmp_path, "train", run_dir, faults=(Signal(moment, "SIGKILL", number=number),))
    assert done.code == -9, done.err
    assert BEGUN <= steps_of(run_dir)[-1] <= STEPS
    resumes_to(whole, warm, run_dir)


def test_a_run_that_is_killed_while_it_writes_leaves_what_the_next_start_removes(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    assert warm.run(tmp_path, "train", run_dir, faults=(Signal(CHECKPOINT, "SIGKILL"),)).code == -9
    assert len(left_over(run_dir)) > 0
    resumes_to(whole, warm, run_dir)
