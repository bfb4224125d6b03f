"""F14 to F17: a disk that is full, failing, read-only or not permitted."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.exporters.registry import EXPORTERS
from bitnet_train.verbs import VERBS
from tests.faults.commands import Warm
from tests.faults.injected import Fault, Limit, Raise, ReadOnly, Unprivileged
from tests.faults.runs import (
    BEGUN,
    CHECKPOINT,
    FIGURES,
    STEP,
    WORDS,
    copy_of,
    exporting,
    files_of,
    left_over,
    resumes_to,
    steps_of,
)

QUICKLY = {"bench": ("bench.repeats=1", "bench.prompt_tokens=1", "bench.new_tokens=1", "bench.threads=[1]")}
SMALL = 20_000  # bytes: configurations and facts are smaller, weights are not
FULL = r"cannot be written: .*; ([\d,]+) bytes are needed, and ([\d,]+) bytes are free"


def limited(amount: int, call: str, number: int = 1) -> Limit:
    """Let no file grow beyond so many bytes: a full disk, for a user who may not mount one."""
    return Limit("RLIMIT_FSIZE", amount, call, number)


def check_full(said: str, path: Path) -> None:
    assert f"{path}" in said
    assert "bytes are needed, and" in said
    assert "bytes are free" in said
    assert "unexpected" not in said


@pytest.fixture
def full_disk(begun: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a run on a disk of its own that holds no further checkpoint; skip where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    try:
        run_dir = copy_of(begun, disk)
        filler = disk / "filler"
        with filler.open("wb") as file:
            file.truncate(0)
            file.write(bytes(max(0, shutil.disk_usage(disk).free - SMALL)))
        yield run_dir
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_leaves_every_checkpoint_and_the_run_goes_on_when_there_is_room(
    full_disk: Path, warm: Warm, whole: dict[str, Any], tmp_path: Path
) -> None:
    before = files_of(full_disk / "checkpoints")
    done = warm.run(tmp_path, "train", full_disk)
    assert done.code == 1, done.err
    check_full(done.said, full_disk / "checkpoints" / f"step-{BEGUN + 1:06d}")
    assert before.items() <= files_of(full_disk / "checkpoints").items()
    (full_disk.parent / "filler").unlink()
    shutil.move(full_disk, tmp_path / "run")
    resumes_to(whole, warm, tmp_path / "run")


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        (limited(SMALL, CHECKPOINT), f"checkpoints/step-{BEGUN + 1:06d}"),
        (limited(SMALL, FIGURES), "metrics.jsonl"),
    ],
    ids=["checkpoint", "metrics"],
)
def test_a_file_that_may_not_grow_ends_the_run_and_loses_nothing(
    fault: Limit, path: str, warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    figures = run_dir / "metrics.jsonl"
    with figures.open("a") as file:
        file.write(f"{'{}':>{SMALL}}\n")  # longer than what the command prints, which is a file too
    before, logged = files_of(run_dir / "checkpoints"), figures.read_bytes()
    done = warm.run(tmp_path, "train", run_dir, faults=(fault,))
    assert done.code == 1, done.err
    check_full(done.said, run_dir / path)
    assert before.items() <= files_of(run_dir / "checkpoints").items()
    assert figures.read_bytes().startswith(logged)
    assert left_over(run_dir) == []
    resumes_to(whole, warm, run_dir)


@pytest.mark.parametrize("name", ["packed", *EXPORTERS])
def test_an_export_that_finds_no_room_leaves_what_was_there(
    name: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before = files_of(run_dir)
    fault = limited(SMALL, "bitnet_train.packed.export_folder:whole_folder")
    done = warm.run(tmp_path, *exporting(run_dir, name), faults=(fault,))
    assert done.code == 1, done.err
    check_full(done.said, run_dir / ("artefact" if name == "packed" else "exports"))
    assert files_of(run_dir) == before


def refusals(folder: Path) -> dict[str, tuple[Fault, ...]]:
    """Return what may be wrong with the folder that runs go to."""
    return {
        "permission": (Unprivileged(),),
        "read-only": (ReadOnly(str(folder)),),
        "failing": (Raise("os:fsync", errno.EIO, stays=True),),
    }


@pytest.mark.parametrize("what", ["permission", "read-only", "failing"])
def test_a_place_that_cannot_be_written_is_refused_before_training(what: str, warm: Warm, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    never_reached = Raise(STEP, 0)
    done = warm.run(tmp_path, *WORDS, f"run.dir={place / 'run'}", faults=(*refusals(place)[what], never_reached))
    assert done.code in (1, 2), done.err
    assert str(place / "run") in done.said
    assert "injected" not in done.said
    assert "unexpected" not in done.said
    assert files_of(place) == {}


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS.values() if verb.is_stage])
def test_no_verb_is_surprised_by_a_run_that_may_not_be_written(
    verb: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before = files_of(run_dir)
    for path in (run_dir, *run_dir.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = warm.run(tmp_path, verb, run_dir, *QUICKLY.get(verb, ()), faults=(Unprivileged(),))
    for path in (run_dir, *run_dir.rglob("*")):
        path.chmod(0o755)
    assert done.code in (0, 1, 2), done.err
    assert "unexpected" not in done.said
    assert "Traceback" not in done.said
    assert files_of(run_dir) == before
    assert steps_of(run_dir) == steps_of(packed)


@pytest.mark.parametrize(("verb", "code"), [("train", 1), ("merge", 1), ("generate", 0)])
def test_a_run_on_a_read_only_disk_is_refused_by_name_and_read_where_nothing_is_written(
    verb: str, code: int, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before = files_of(run_dir)
    done = warm.run(tmp_path, verb, run_dir, faults=(ReadOnly(str(run_dir)),))
    assert done.code == code, done.err
    assert ("Read-only file system" in done.said) == bool(code)
    assert "unexpected" not in done.said
    assert files_of(run_dir) == before
