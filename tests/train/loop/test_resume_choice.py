from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import folder_name
from bitnet_train.train.loop.resume_choice import check_choice, resume_from


def save(directory: Path, step: int) -> Path:
    folder = directory / folder_name(step)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(3)}, "progress": {"step": step}}, folder)
    return folder


def test_what_is_asked_for_is_chosen_by_hash_or_by_manifest_alone(tmp_path: Path) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    (second / "state.pt").write_bytes(b"")
    said: list[str] = []
    assert resume_from("auto", tmp_path, said.append) == first
    assert "step-000002" in said[0]
    assert check_choice("auto", tmp_path) == second, "its state is hashed when training starts"
    assert resume_from(str(first), tmp_path, print) == check_choice(str(first), tmp_path) == first
    for choice in ("auto", "never"):
        assert resume_from(choice, tmp_path / "new", print) is check_choice(choice, tmp_path / "new") is None


@pytest.mark.parametrize("inside", ["", "checkpoints"])
def test_a_path_that_names_no_checkpoint_is_answered_with_one_that_does(tmp_path: Path, inside: str) -> None:
    newest = save(tmp_path / "run" / "checkpoints", 3)
    given = tmp_path / "run" / inside
    with pytest.raises(
        ConfigError, match=r"is neither .* It holds checkpoints: name one of them, such as (.*), or"
    ) as caught:
        check_choice(str(given), tmp_path / "run" / "checkpoints")
    assert str(newest) in str(caught.value)


def test_a_path_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"step-000003` is neither .* There is no such folder\."):
        check_choice(str(tmp_path / "step-000003"), tmp_path)


def test_one_of_another_run_is_refused_and_one_of_this_run_that_lies_elsewhere_is_not(tmp_path: Path) -> None:
    own, foreign = save(tmp_path / "own", 1), save(tmp_path / "other", 2)
    with pytest.raises(TrainingError, match="another run"):
        check_choice(str(foreign), tmp_path / "own")
    with pytest.raises(TrainingError, match="another run"):
        check_choice(str(foreign), tmp_path / "new")
    kept = shutil.copytree(own, tmp_path / "kept" / own.name)
    assert check_choice(str(kept), tmp_path / "own") == kept


def test_never_refuses_to_mix_two_runs_and_auto_to_start_again(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"`trainer\.resume=never`, but .* has checkpoints of an earlier run"):
        check_choice("never", tmp_path)
    with pytest.raises(TrainingError, match="None of the 1 checkpoints"):
        check_choice("auto", tmp_path)
