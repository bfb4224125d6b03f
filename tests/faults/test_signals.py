"""F1 to F9: signals that ask a process to end, at the moments where it has most to lose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitnet_train.exporters.registry import EXPORTERS
from tests.faults.commands import Warm
from tests.faults.injected import Signal
from tests.faults.runs import (
    BEGUN,
    CHECKPOINT,
    CONVERSION,
    EXPORTING,
    MICRO_STEP,
    PACKING,
    STEP,
    TOKENISING,
    VALIDATION,
    WORDS,
    copy_of,
    exporting,
    files_of,
    left_over,
    resumes_to,
    steps_of,
)


@pytest.mark.parametrize("moment", [TOKENISING, CONVERSION], ids=["tokenising", "conversion"])
def test_sigterm_before_the_first_step_saves_nothing_and_a_resume_begins_anew(
    moment: str, warm: Warm, whole: dict[str, Any], tmp_path: Path
) -> None:
    done = warm.run(tmp_path, *WORDS, "run.dir=run", faults=(Signal(moment),))
    assert done.code == 143, done.err
    assert "Traceback" not in done.err
    assert steps_of(tmp_path / "run") == []
    assert left_over(tmp_path / "run") == []
    resumes_to(whole, warm, tmp_path / "run")


def test_sigterm_in_step_0_saves_that_step(warm: Warm, whole: dict[str, Any], tmp_path: Path) -> None:
    done = warm.run(tmp_path, *WORDS, "run.dir=run", faults=(Signal(STEP),))
    assert done.code == 143, done.err
    assert "Interrupted by SIGTERM after step 1: saved run/checkpoints/step-000001" in done.said
    assert steps_of(tmp_path / "run") == [1]
    resumes_to(whole, warm, tmp_path / "run")


@pytest.mark.parametrize(
    ("moment", "number", "saved"),
    [(MICRO_STEP, 4, BEGUN + 2), (VALIDATION, 1, BEGUN + 2), (CHECKPOINT, 1, BEGUN + 2)],
    ids=["mid-accumulation", "validation", "checkpoint write"],
)
def test_sigterm_later_saves_what_is_finished(
    moment: str, number: int, saved: int, warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(Signal(moment, number=number),))
    assert done.code == 143, done.err
    assert f"Interrupted by SIGTERM after step {saved}: saved {run_dir}/checkpoints/step-{saved:06d}" in done.said
    assert "trainer.resume=auto" in done.said
    assert steps_of(run_dir)[-1] == saved
    resumes_to(whole, warm, run_dir)


def test_sigint_once_finishes_the_step_and_saves(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(Signal(STEP, "SIGINT", number=2),))
    assert done.code == 130, done.err
    assert steps_of(run_dir)[-1] == BEGUN + 2
    resumes_to(whole, warm, run_dir)


def test_sigint_twice_quits_at_once(warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, faults=(Signal(STEP, "SIGINT", number=2, times=2),))
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert steps_of(run_dir)[-1] == BEGUN + 1, "the step that was running is not finished"
    resumes_to(whole, warm, run_dir)


@pytest.mark.parametrize("name", ["packed", *EXPORTERS])
def test_sigint_during_an_export_leaves_no_folder(name: str, warm: Warm, packed: Path, tmp_path: Path) -> None:
    run_dir = copy_of(packed, tmp_path)
    before = files_of(run_dir)
    moment = PACKING if name == "packed" else EXPORTING
    done = warm.run(tmp_path, *exporting(run_dir, name), faults=(Signal(moment, "SIGINT"),))
    assert done.code == 130, done.err
    assert done.err.strip().endswith("Interrupted.")
    assert files_of(run_dir) == before
