from __future__ import annotations

import errno
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitnet_train import whole
from bitnet_train.errors import DiskError
from bitnet_train.process import this_process
from bitnet_train.whole import append_line, clear_left, remove_folder, whole_file, whole_folder, write_whole


def left_by(pid: int, name: str, kind: str, start: str = "") -> str:
    return f".{name}.{kind}-{platform.node()}-{pid}.{start}"


@pytest.fixture(scope="module")
def dead() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_failed_write_leaves_the_earlier_file_and_no_sibling(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "before")
    with pytest.raises(TypeError), whole_file(tmp_path / "file") as draft:
        draft.write_text(None)  # opened, and then refused
    assert contents(tmp_path) == {"file": "before"}


def test_until_the_block_ends_well_readers_see_the_earlier_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as draft:
        (draft / "one").write_text("1")
    with whole_folder(tmp_path / "out") as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "two").write_text("2")
        assert contents(tmp_path / "out") == {"one": "1"}
    assert contents(tmp_path) == {"out/deep/two": "2"}


def test_a_failed_folder_leaves_the_earlier_one(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as draft:
        (draft / "one").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        raise RuntimeError
    assert contents(tmp_path) == {"out/one": "1"}


def failing_second(error: BaseException) -> Callable[[Path, Path], Path]:
    """Return `Path.rename`, whose second call raises an error instead."""
    rename, calls = Path.rename, []

    def fails_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise error
        return rename(self, target)

    return fails_second


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.EPERM, "refused"), DiskError, "out cannot be written: Operation not permitted"),
        (KeyboardInterrupt("asked"), KeyboardInterrupt, "asked"),
        (SystemExit(143), SystemExit, "143"),
    ],
    ids=["refused", "SIGINT", "SIGTERM"],
)
def test_a_folder_comes_back_where_the_new_one_does_not_take_its_place(
    error: BaseException,
    raised: type[BaseException],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_whole(tmp_path / "out" / "one", "1")
    monkeypatch.setattr(Path, "rename", failing_second(error))
    with pytest.raises(raised, match=message), whole_folder(tmp_path / "out"):
        pass
    assert contents(tmp_path) == {"out/one": "1"}


def test_what_a_dead_process_left_goes_away_and_what_a_live_one_writes_stays(tmp_path: Path, dead: int) -> None:
    others = (left_by(1, "file", "partial"), left_by(dead, "file2", "partial"), f".file.partial-elsewhere-{dead}")
    for name in (left_by(dead, "file", "partial"), *others):
        (tmp_path / name).write_text("half")
    write_whole(tmp_path / "file", "whole")
    assert contents(tmp_path) == {"file": "whole", **dict.fromkeys(others, "half")}


def test_an_id_that_is_used_again_keeps_nothing_alive_and_older_names_are_known(tmp_path: Path, dead: int) -> None:
    own = left_by(os.getpid(), "file", "partial")[:-1]  # as it was written before starts were
    for name in (left_by(os.getpid(), "file", "partial", "0123456789ab"), left_by(dead, "file", "partial")[:-1], own):
        (tmp_path / name).write_text("half")
    write_whole(tmp_path / "file", "whole")
    assert contents(tmp_path) == {"file": "whole", own: "half"}


def test_all_that_dead_processes_left_in_a_folder_goes_at_once(tmp_path: Path, dead: int) -> None:
    alive = left_by(os.getpid(), "other", "partial", this_process().start)
    write_whole(tmp_path / "deep" / left_by(dead, "out", "previous") / "one", "1")
    for name in (f"deep/{left_by(dead, 'out', 'partial')}/two", f"{left_by(dead, 'file', 'partial')}", alive):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    elsewhere = f".file.partial-elsewhere-{dead}.0"
    (tmp_path / elsewhere).write_text("half")
    (tmp_path / "linked").symlink_to(tmp_path.parent)
    clear_left(tmp_path)
    assert contents(tmp_path) == {"deep/out/one": "1", alive: "half", elsewhere: "half"}
    clear_left(tmp_path, is_ours=True)
    assert contents(tmp_path) == {"deep/out/one": "1", alive: "half"}


def test_a_folder_whose_writer_died_between_two_renames_is_put_back(tmp_path: Path, dead: int) -> None:
    write_whole(tmp_path / left_by(dead, "out", "previous") / "one", "1")
    write_whole(tmp_path / left_by(dead, "out", "partial") / "two", "2")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        raise RuntimeError
    assert contents(tmp_path) == {"out/one": "1"}


def test_a_writer_that_is_killed_leaves_the_earlier_file_to_be_read(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "before")
    code = (
        "import os, sys; from pathlib import Path; from bitnet_train.whole import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as draft: draft.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")]).returncode == -9
    assert (tmp_path / "file").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
    write_whole(tmp_path / "file", "after")
    assert contents(tmp_path) == {"file": "after"}


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log"
    append_line(log, "first")
    append_line(log, "äther")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))  # writes beyond are cut, then fail
    try:
        with pytest.raises(DiskError, match=r"log cannot be written: .*; 101 bytes are needed, and .* bytes are free"):
            append_line(log, "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(log, "last")
    assert log.read_text(encoding="utf-8").splitlines() == ["first", "äther", "last"]


def test_everything_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(whole, "_flush", lambda path: flushed.append(path.name))
    with whole_folder(tmp_path / "out") as draft:
        (draft / "one").write_text("1")
    assert flushed == ["one", left_by(os.getpid(), "out", "partial", this_process().start), tmp_path.name]


def test_a_removed_folder_is_gone_at_once_under_its_name(tmp_path: Path) -> None:
    write_whole(tmp_path / "out" / "one", "1")
    remove_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_no_other_file_of_the_package_renames_or_flushes() -> None:
    package = Path(whole.__file__).parent
    words = ("os.fsync", "os.replace(", ".rename(", "draft.replace(")
    allowed = {"whole.py", "exporters/safetensors_stream.py"}  # the stream is flushed inside an export's folder
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in words)
    }
    assert found == allowed
