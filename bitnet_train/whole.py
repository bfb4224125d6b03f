"""Files and folders that appear whole or not at all: the one writer of everything that must survive a kill.

What is written goes to a hidden sibling (`.NAME.partial-HOST-PID.START`), is flushed to the disk, and renamed. On POSIX
a rename within one file system is atomic, so a crash, a kill or a full disk leaves what was there before, or what is
new. A folder that is replaced steps aside first (`.NAME.previous-HOST-PID.START`): for the moment between two renames
there is none, and a process that dies just then has the next writer put the previous one back. What a dead process of
this machine left behind goes away when the same name is written again, and all of a folder with `clear_left`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitnet_train.disk import needing, writing
from bitnet_train.process import Process, this_process

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|previous)-(?P<host>.+)-(?P<pid>\d+)(\.(?P<start>[0-9a-f]*))?")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a sibling to write to; when the block ends well it becomes `path`, flushed to disk. Raises DiskError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent, path.name)
        draft = _sibling(path, "partial")
        try:
            yield draft
            _flush(draft)
            draft.replace(path)
            _flush(path.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty sibling to fill; when the block ends well it becomes `path`, in place of an earlier one there.

    Every file is flushed to the disk before the rename. Raises DiskError; `path` is then as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent, path.name)
        draft = _sibling(path, "partial")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir()
            yield draft
            for entry in [*draft.rglob("*"), draft]:
                _flush(entry)
            _swap(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all. Raises DiskError."""
    content = text.encode()
    with whole_file(path) as draft, needing(len(content)):
        draft.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, which is there when this returns: all of it, or on DiskError nothing of it."""
    content = memoryview(f"{line}\n".encode())
    with writing(path), needing(len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(length)
                raise


def remove_folder(path: Path) -> None:
    """Delete a folder; it is renamed first, so that a half-deleted one never looks whole."""
    doomed = _sibling(path, "partial")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def move_folder(folder: Path, place: Path) -> None:
    """Move a folder on one disk, in place of an earlier one there. Raises DiskError."""
    with writing(place):
        place.parent.mkdir(exist_ok=True)
        _swap(folder, place)


def _swap(draft: Path, path: Path) -> None:
    """Rename `draft` to `path`; what is there steps aside first and comes back if that fails."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        draft.rename(path)
    else:
        previous = _sibling(path, "previous")
        try:
            path.rename(previous)
            draft.rename(path)
        except BaseException:  # a signal that ends the process, too
            if previous.exists() and not path.exists():
                previous.rename(path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _flush(path.parent)


def clear_left(folder: Path, *, is_ours: bool = False) -> None:
    """Remove what dead processes left in a folder and those in it, or put the previous one back. Raises DiskError.

    Of a process of another machine nothing is known; `is_ours` says that none but this one writes here.
    """
    with writing(folder):
        _clear(folder, is_ours=is_ours)
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.is_symlink() and not _LEFT.fullmatch(inner.name):
                clear_left(inner, is_ours=is_ours)


def _sibling(path: Path, kind: str) -> Path:
    own = this_process()
    return path.with_name(f".{path.name}.{kind}-{own.host}-{own.pid}.{own.start}")


def _clear(folder: Path, name: str | None = None, *, is_ours: bool = False) -> None:
    """Clear away what dead processes left of `name`, or of every name, in a folder."""
    for left in sorted(folder.iterdir(), reverse=True):  # `previous` before `partial`
        match = _LEFT.fullmatch(left.name)
        if match is None or (name is not None and match["name"] != name):
            continue
        writer = Process(match["host"], int(match["pid"]), match["start"] or "")
        if writer.lives and (writer.is_here or not is_ours):
            continue
        if match["kind"] == "previous" and not (folder / match["name"]).exists():
            left.rename(folder / match["name"])
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
