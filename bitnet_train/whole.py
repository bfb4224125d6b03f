"""A folder appears whole or not at all.

Everything is written to a hidden sibling (`.NAME.partial-PID`), flushed to the disk, and renamed: on POSIX a rename
within one file system is atomic, so a crash, a kill or a full disk leaves either the previous folder or the new one.
A partial folder that a killed process left behind can be deleted by hand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitnet_train.errors import FormatError


@contextmanager
def staged_folder(target: Path, *, force: bool, owned: Callable[[Path], set[str]]) -> Iterator[Path]:
    """Yield a folder to write into; when the block ends well, it becomes `target`.

    Parameters
    ----------
    target
        A path that does not exist, or an empty folder; with `force` also an earlier export.
    force
        Replace an earlier export. A folder with any file that `owned` does not list is never replaced.
    owned
        The names of the files that the earlier export at this path wrote.

    Raises
    ------
    FormatError
        When `target` is taken, or the disk is full, read-only or not permitted. `target` is then unchanged.
    """
    _check_target(target, force=force, owned=owned)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        for path in [*staging.iterdir(), staging]:
            _fsync(path)
        _swap(staging, target)
    except OSError as error:
        raise FormatError(
            f"Could not write {target}: {error.strerror or error}. Nothing was changed there. Free some space or "
            "choose a folder that you may write to, and export again: the trained model is still where it was."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(target: Path, *, force: bool, owned: Callable[[Path], set[str]]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise FormatError(f"Cannot export to {target}: it is a file. Choose a folder.")
    present = {entry.name for entry in target.iterdir()}
    if not present:
        return
    if not force:
        raise FormatError(
            f"Cannot export to {target}: the folder is not empty. Choose another, or replace an earlier "
            "export with `force=True` (on the command line `export.force=true`)."
        )
    foreign = sorted(present - owned(target))
    if foreign:
        raise FormatError(
            f"Cannot replace {target}: it also holds {', '.join(foreign[:3])}{' ...' if len(foreign) > 3 else ''}, "
            "which no export wrote. Move that away, or choose another folder."
        )


def _swap(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`; an earlier export steps aside first and comes back if that fails."""
    if not target.exists() or not any(target.iterdir()):
        staging.rename(target)
    else:
        previous = target.parent / f".{target.name}.previous-{os.getpid()}"
        target.rename(previous)
        try:
            staging.rename(target)
        except OSError:
            previous.rename(target)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _fsync(target.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
