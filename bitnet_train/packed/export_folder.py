"""Where an export goes: an empty place, or in place of an earlier export and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bitnet_train.errors import FormatError
from bitnet_train.whole import whole_folder


@contextmanager
def export_folder(target: Path, *, force: bool, owned: Callable[[Path], set[str]]) -> Iterator[Path]:
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
        When `target` is taken. It is then unchanged.
    DiskError
        When the disk is full, read-only or not permitted. `target` is then unchanged.
    """
    _check_target(target, force=force, owned=owned)
    with whole_folder(target) as folder:
        yield folder


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
