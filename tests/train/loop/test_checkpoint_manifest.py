from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bitnet_train.errors import TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import (
    check_own,
    find_latest,
    find_readable,
    folder_name,
    read_manifest,
    run_id,
    verify,
)

SETTINGS = {"optimizer.lr": 3e-4, "optimizer.betas": [0.9, 0.95], "data.path": "ä.txt", "trainer.patience": None}


def save(directory: Path, step: int) -> Path:
    folder = directory / folder_name(step)
    state = {"state_dict": {"w": torch.full((3,), float(step))}, "progress": {"step": step}}
    AtomicCheckpointIO(9, SETTINGS).save_checkpoint(state, folder)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def as_schema_1(folder: Path) -> Path:
    """Make a checkpoint one of before manifests were sealed and runs had names."""
    edit(folder, lambda m: [m.update(schema=1), m.pop("seal"), m.pop("run")])
    return folder


def test_a_manifest_says_what_it_was_trained_under_and_holds_whoever_indents_it(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    edit(folder, lambda m: None)
    manifest = verify(folder)
    assert (manifest["step"], manifest["settings"]) == (7, SETTINGS)
    assert manifest["run"] == run_id(tmp_path)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "step": lambda m: m.update(step=13),
    "run": lambda m: m.update(run="0" * 16),
    "schema": lambda m: m.update(schema=1),
    "versions": lambda m: m["versions"].update(torch="1.0"),
    "settings": lambda m: m["settings"].update({"optimizer.lr": 1.0}),
    "settings left out": lambda m: m.pop("settings"),
    "bytes": lambda m: m["files"]["state.pt"].update(bytes=1),
    "sha256": lambda m: m["files"]["state.pt"].update(sha256="0" * 64),
    "seal": lambda m: m.update(seal="0" * 64),
    "seal left out": lambda m: m.pop("seal"),
    "more": lambda m: m.update(more=1),
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_an_edited_field_is_damage(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = save(tmp_path, 7)
    edit(folder, change)
    with pytest.raises(TrainingError, match=r"step-000007/manifest\.json is damaged: its fields are not those"):
        read_manifest(folder)


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 7) / "manifest.json"
    content = path.read_bytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert read_manifest(path.parent) == json.loads(content), "a space that became another"
        except TrainingError:
            continue


def test_a_folder_that_was_renamed_is_not_of_the_step_that_it_says(tmp_path: Path) -> None:
    folder = save(tmp_path, 7).rename(tmp_path / "step-000009")
    with pytest.raises(TrainingError, match="says step 7, and its folder step-000009"):
        read_manifest(folder)


def test_a_checkpoint_of_before_there_were_seals_loads_and_its_step_is_held_against_the_state(tmp_path: Path) -> None:
    folder = as_schema_1(save(tmp_path, 7))
    assert AtomicCheckpointIO().load_checkpoint(folder)["progress"]["step"] == 7
    assert find_latest(tmp_path, say=print) == folder
    edit(folder, lambda m: m.update(step=13))
    moved = folder.rename(tmp_path / "step-000013")
    with pytest.raises(TrainingError, match=r"says step 13, and `state\.pt` holds step 7"):
        AtomicCheckpointIO().load_checkpoint(moved)


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    edit(folder, lambda m: m.update(schema=3))
    with pytest.raises(TrainingError, match=r"schema 3; this version reads 1 and 2\. Update"):
        verify(folder)


def test_a_checkpoint_of_another_run_is_passed_over_by_name_and_refused_where_it_is_named(tmp_path: Path) -> None:
    own = save(tmp_path / "own", 1)
    foreign = shutil.copytree(save(tmp_path / "other", 5), tmp_path / "own" / "step-000005")
    said: list[str] = []
    assert find_latest(tmp_path / "own", said.append) == own
    assert find_readable(tmp_path / "own") == own
    assert "step-000005 is a checkpoint of another run" in said[0]
    with pytest.raises(TrainingError, match=r"of another run than that of .*`model\.source=RUN/merged`"):
        check_own(foreign, tmp_path / "own", verify(foreign))


@pytest.mark.parametrize("is_old", [False, True])
def test_a_checkpoint_that_lies_elsewhere_is_the_runs_own_where_it_says_so(tmp_path: Path, is_old: bool) -> None:
    folder = save(tmp_path / "own", 1)
    elsewhere = shutil.copytree(folder, tmp_path / "kept" / "step-000001")
    if is_old:
        as_schema_1(folder), as_schema_1(elsewhere)
        with pytest.raises(TrainingError, match="of another run"):
            check_own(elsewhere, tmp_path / "own", verify(elsewhere))
    else:
        check_own(elsewhere, tmp_path / "own", verify(elsewhere))
    check_own(folder, tmp_path / "own", verify(folder))


def test_a_run_folder_that_was_copied_whole_goes_on_as_the_same_run(tmp_path: Path) -> None:
    save(tmp_path / "run", 1)
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    later = save(copy, 2)
    assert read_manifest(later)["run"] == run_id(tmp_path / "run")


@pytest.mark.parametrize("left", [None, "", "no name\n", "\xff"])
def test_a_lost_name_of_the_run_is_taken_from_its_newest_checkpoint(tmp_path: Path, left: str | None) -> None:
    name = read_manifest(save(tmp_path, 1))["run"]
    (tmp_path / "run_id").unlink()
    if left is not None:
        (tmp_path / "run_id").write_text(left, encoding="latin-1")
    assert find_latest(tmp_path, say=print) == tmp_path / "step-000001"
    save(tmp_path, 2)
    assert run_id(tmp_path) == name


def test_where_none_can_be_used_the_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.pt").write_bytes(b"")
    said: list[str] = []
    with pytest.raises(TrainingError, match=r"None of the 2 .*`trainer\.resume=never`.* newest: .*step-000002"):
        find_latest(tmp_path, said.append)
    assert len(said) == 2
    assert find_readable(tmp_path) == tmp_path / "step-000002", "their states are not looked at"
