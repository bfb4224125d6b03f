"""F18 to F23: checkpoints that are damaged, not there, of another run, or written by an older version."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.commands import Warm
from tests.faults.runs import BEGUN, STEPS, WORDS, copy_of, resumes_to, steps_of, weights_of

DAMAGED = 20
LONG = (
    f"trainer.max_steps={BEGUN + DAMAGED}",
    f"trainer.keep_last={DAMAGED + BEGUN}",
    "trainer.validate_every_steps=0",
)
OLDER = Path(__file__).parent / "older"  # runs with a checkpoint of each earlier schema, stopped after two steps


@pytest.fixture(scope="module")
def long_run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that kept the checkpoint of every step."""
    folder = tmp_path_factory.mktemp("long")
    done = warm.run(folder, *WORDS, *LONG, "run.dir=run")
    assert done.code == 0, done.err
    return folder / "run"


def truncate(folder: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(folder.iterdir()))
    path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])


def flip_a_bit(folder: Path, dice: random.Random) -> None:
    path = dice.choice(sorted(folder.iterdir()))
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def delete_a_file(folder: Path, dice: random.Random) -> None:
    dice.choice(sorted(folder.iterdir())).unlink()


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, delete_a_file])
def test_every_damaged_checkpoint_is_named_and_the_newest_whole_one_is_taken(
    damage: Callable[[Path, random.Random], None],
    warm: Warm,
    long_run: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    run_dir, dice = copy_of(long_run, tmp_path), random.Random(damage.__name__)
    hurt = [run_dir / "checkpoints" / f"step-{step:06d}" for step in steps_of(run_dir) if step > BEGUN]
    for folder in hurt:
        damage(folder, dice)
    record_property("times", len(hurt))
    assert len(hurt) == DAMAGED
    done = warm.run(tmp_path, "train", run_dir)
    assert done.code == 0, done.err
    silent = [folder.name for folder in hurt if f"{folder}/" not in done.said]
    assert silent == []
    assert "is damaged" in done.said
    last = BEGUN + DAMAGED
    reached, expected = weights_of(run_dir, last), weights_of(long_run, last)
    assert [name for name in expected if not torch.equal(reached[name], expected[name])] == []


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(warm: Warm, begun: Path, tmp_path: Path) -> None:
    run_dir = copy_of(begun, tmp_path)
    for state in run_dir.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"")
    done = warm.run(tmp_path, "train", run_dir)
    assert done.code == 1, done.err
    assert "state.pt is damaged" in done.said
    assert steps_of(run_dir) == [1, 2], "nothing was trained over them"


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    missing = run_dir / "checkpoints" / "step-000009"
    done = warm.run(tmp_path, "train", run_dir, f"trainer.resume={missing}")
    assert done.code == 2, done.err
    assert f"`trainer.resume={missing}`" in done.said
    resumes_to(whole, warm, run_dir)


def test_a_newer_checkpoint_of_another_run_is_passed_over_with_a_message(
    warm: Warm, whole_run: Path, whole: dict[str, Any], begun: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, *WORDS, "trainer.seed=1", "run.dir=other")
    assert done.code == 0, done.err
    foreign = run_dir / "checkpoints" / "step-000005"
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-000005", foreign)
    done = resumes_to(whole, warm, run_dir)
    assert str(foreign) in done.said
    assert "another run" in done.said


@pytest.mark.parametrize(
    ("key", "value"),
    [("activation", "int4"), ("weight", "ternary_tensor"), ("data.context_tokens", "32"), ("trainer.batch_rows", "4")],
)
def test_a_resume_under_other_settings_is_refused_with_the_difference(
    key: str, value: str, warm: Warm, begun: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = warm.run(tmp_path, "train", run_dir, f"{key}={value}")
    assert done.code == 2, done.err
    assert f"{key}" in done.said
    assert " -> " in done.said
    assert steps_of(run_dir) == [1, 2]


def test_a_setting_that_is_no_part_of_the_model_may_change_and_is_said(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    done = resumes_to(whole, warm, run_dir, "trainer.keep_last=5")
    assert "trainer.keep_last: 2 -> 5" in done.said
    assert "keep_last: 5" in (run_dir / "config.yaml").read_text()


@pytest.mark.parametrize("schema", sorted(path.name for path in OLDER.iterdir()))
def test_a_checkpoint_of_an_older_version_is_taken_up(schema: str, warm: Warm, tmp_path: Path) -> None:
    run_dir = copy_of(OLDER / schema, tmp_path)
    (before,) = steps_of(run_dir)
    done = warm.run(tmp_path, "train", run_dir, f"data.path={run_dir / 'text.txt'}")
    assert done.code == 0, done.err
    assert f"step {before + 1}/{STEPS}" in done.said
    assert steps_of(run_dir)[-1] == STEPS > before
    assert warm.run(tmp_path, "merge", run_dir).code == 0
