"""Files and folders that appear whole or not at all: the one writer of everything that must survive a kill.

What is written goes to a hidden sibling (`.NAME.partial-HOST-PID`), is flushed to the disk, and renamed. On POSIX a
rename within one file system is atomic, so a crash, a kill or a full disk leaves what was there before, or what is new.
A folder that is replaced steps aside first (`.NAME.previous-HOST-PID`): for the moment between two renames there is
none, and a process that dies just then has the next writer put the previous one back. What a dead process of this
machine left behind goes away when the same name is written again.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<kind>partial|previous)-(?P<host>.+)-(?P<pid>\d+)")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a sibling to write to; when the block ends well it becomes `path`, flushed to the disk. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
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

    Every file is flushed to the disk before the rename. Raises OSError; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
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
    """Write text as UTF-8, whole or not at all. Raises OSError."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def remove_folder(path: Path) -> None:
    """Delete a folder; it is renamed first, so that a half-deleted one never looks whole."""
    doomed = _sibling(path, "partial")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _swap(draft: Path, path: Path) -> None:
    """Rename `draft` to `path`; what is there steps aside first and comes back if that fails."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        draft.rename(path)
    else:
        previous = _sibling(path, "previous")
        path.rename(previous)
        try:
            draft.rename(path)
        except OSError:
            previous.rename(path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _flush(path.parent)


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{platform.node()}-{os.getpid()}")


def _sweep(path: Path) -> None:
    """Remove what dead processes of this machine left of `path`, or put the previous one back where there is none."""
    for left in sorted(path.parent.iterdir(), reverse=True):  # `previous` before `partial`
        match = _LEFT.fullmatch(left.name)
        if match is None or match["name"] != path.name or match["host"] != platform.node() or _lives(int(match["pid"])):
            continue
        if match["kind"] == "previous" and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
