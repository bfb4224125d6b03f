from __future__ import annotations

import json
import os
import platform
import resource
from pathlib import Path

import pytest
import torch

from bitnet_train.errors import DiskError, TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import find_latest, folder_name, list_checkpoints, verify


def state(step: int, size: int = 100) -> dict:
    return {"state_dict": {"w": torch.full((size,), float(step))}, "progress": {"step": step}, "betas": (0.9, 0.95)}


def save(directory: Path, step: int, keep_last: int = 3) -> Path:
    folder = directory / folder_name(step)
    AtomicCheckpointIO(keep_last).save_checkpoint(state(step), folder)
    return folder


def test_what_was_saved_is_loaded_as_plain_data(tmp_path: Path) -> None:
    loaded = AtomicCheckpointIO().load_checkpoint(save(tmp_path, 120))
    assert torch.equal(loaded["state_dict"]["w"], torch.full((100,), 120.0))
    assert loaded["betas"] == [0.9, 0.95]
    assert verify(tmp_path / "step-000120")["step"] == 120


def test_the_last_n_are_kept_and_nothing_else_lies_around(tmp_path: Path) -> None:
    (tmp_path / f".step-000001.partial-{platform.node()}-{2**22 + 1}.0").mkdir()  # no process has such an id
    for step in (1, 20, 3_000_000, 300):
        save(tmp_path, step, keep_last=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run_id",
        "step-000020",
        "step-000300",
        "step-3000000",
    ]


def test_a_step_saved_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    folder = save(tmp_path, 5)
    AtomicCheckpointIO().save_checkpoint(state(5, size=7), folder)
    assert len(AtomicCheckpointIO().load_checkpoint(folder)["state_dict"]["w"]) == 7
    assert list_checkpoints(tmp_path) == [folder]


def truncate(folder: Path) -> Path:
    path = folder / "state.pt"
    os.truncate(path, path.stat().st_size - 1)
    return path


def flip_one_bit(folder: Path) -> Path:
    path = folder / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def remove_state(folder: Path) -> Path:
    (folder / "state.pt").unlink()
    return folder / "state.pt"


def remove_manifest(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    return folder / "manifest.json"


def cut_manifest(folder: Path) -> Path:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])
    return path


def empty_list_of_files(folder: Path) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    return path


DAMAGES = [truncate, flip_one_bit, remove_state, remove_manifest, cut_manifest, empty_list_of_files]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_loading_and_the_file_is_named(tmp_path: Path, damage) -> None:
    path = damage(save(tmp_path, 1))
    with pytest.raises(TrainingError, match="is damaged") as caught:
        AtomicCheckpointIO().load_checkpoint(tmp_path / "step-000001")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_found_and_damaged_ones_are_named(tmp_path: Path, damage) -> None:
    whole = save(tmp_path, 1)
    damage(save(tmp_path, 2))
    (tmp_path / ".step-000003.partial-elsewhere-1").mkdir()
    (tmp_path / "notes").mkdir()
    said: list[str] = []
    assert find_latest(tmp_path, say=said.append) == whole
    assert len(said) == 1
    assert "step-000002" in said[0]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "absent", say=print) is None
    assert list_checkpoints(tmp_path) == []


def test_a_tensor_that_is_not_finite_never_reaches_the_disk(tmp_path: Path) -> None:
    earlier = save(tmp_path, 1)
    broken = state(2)
    broken["state_dict"]["w"][3] = float("inf")
    with pytest.raises(TrainingError, match="`w` is not finite"):
        AtomicCheckpointIO().save_checkpoint(broken, tmp_path / "step-000002")
    assert list_checkpoints(tmp_path) == [earlier]


def test_only_plain_data_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain data only, not PosixPath"):
        AtomicCheckpointIO().save_checkpoint(state(1) | {"path": tmp_path}, tmp_path / "step-000001")


def test_a_folder_that_cannot_be_written_is_named_with_what_to_do() -> None:
    folder = Path("/proc/bitnet-train/step-000001")
    with pytest.raises(DiskError, match=r"/proc/bitnet-train/step-000001 cannot be written: No such file") as caught:
        AtomicCheckpointIO().save_checkpoint(state(1), folder)
    assert "`bitnet-train train /proc`" in caught.value.__notes__[0]


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(tmp_path: Path) -> None:
    earlier = save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # writes beyond fail with EFBIG, as on a full disk
    try:
        said = r"step-000002 cannot be written: File too large; \d+,... bytes are needed, and [\d,]+ bytes are free"
        with pytest.raises(DiskError, match=said):
            AtomicCheckpointIO(keep_last=1).save_checkpoint(state(2, size=100_000), tmp_path / "step-000002")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert find_latest(tmp_path, say=print) == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_id", "step-000001"]
