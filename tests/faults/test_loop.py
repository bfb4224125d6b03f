"""F24 to F29: numbers that go wrong in a step, and data that cannot be read in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.commands import Warm
from tests.faults.injected import BadNumber, Count, Raise
from tests.faults.runs import BATCH, BEGUN, STEP, STEPS, copy_of, resumes_to, steps_of, weights_of

SPIKE = 20.0


def check_finite(run_dir: Path) -> None:
    saved = weights_of(run_dir, steps_of(run_dir)[-1])
    assert [name for name, values in saved.items() if not bool(values.isfinite().all())] == []


def unlike(run_dir: Path, whole: dict[str, Any]) -> list[str]:
    """Return what differs from the run that nothing happened to: a fault that changes nothing is none."""
    reached = weights_of(run_dir)
    return [name for name in whole if not torch.equal(reached[name], whole[name])]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_once_is_skipped(
    where: str, warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(BadNumber(where, BEGUN + 1),))
    assert done.code == 0, done.err
    assert f"warning: step {BEGUN + 2}: the {where}" in done.said
    assert "skipped and no weight changes" in done.said
    check_finite(run_dir)
    assert steps_of(run_dir)[-1] == STEPS
    assert unlike(run_dir, whole)


def test_a_loss_that_is_not_finite_in_every_step_ends_the_run_and_leads_back_to_its_last_good_checkpoint(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(BadNumber("loss", BEGUN, steps=STEPS),))
    assert done.code == 1, done.err
    good = run_dir / "checkpoints" / f"step-{BEGUN:06d}"
    assert f"Training diverged at step {STEPS - 1}: the loss is nan" in done.said
    assert f"Last good checkpoint: {good}." in done.said
    assert "unexpected" not in done.said
    check_finite(run_dir)
    resumes_to(whole, warm, run_dir, f"trainer.resume={good}")


def test_a_loss_that_jumps_is_said_with_the_rows_that_it_came_from(warm: Warm, begun: Path, tmp_path: Path) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(BadNumber("loss", BEGUN + 1, factor=SPIKE),))
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses[BEGUN + 2] > 5 * losses[BEGUN + 1], "the loss did jump"
    assert f"warning: step {BEGUN + 2}: the loss jumped to" in done.said
    (odd,) = [json.loads(line) for line in (run_dir / "odd_steps.jsonl").read_text().splitlines()]
    assert odd["step"] == BEGUN + 2
    assert len(odd["rows"]) == 2
    check_finite(run_dir)


def test_there_is_no_worker_process_to_lose(warm: Warm, begun: Path, tmp_path: Path) -> None:
    """Rows are made before training and picked in the process that trains: nothing else can die under it."""
    run_dir, told = copy_of(begun, tmp_path), tmp_path / "children"
    done = warm.run(tmp_path, "train", run_dir, faults=(Count(STEP, str(told), number=2),))
    assert done.code == 0, done.err
    assert told.read_text() == "0"


def test_rows_that_cannot_be_read_end_the_run_and_lose_nothing(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(Raise(BATCH, 5, number=2),))
    assert done.code == 1, done.err
    assert steps_of(run_dir)[-1] >= BEGUN
    resumes_to(whole, warm, run_dir)
