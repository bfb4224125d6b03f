"""What a person typed, asked of the file system: a word that no path can be is simply not there.

`Path.exists` and its siblings raise OSError for a name of over 255 bytes, and so a prompt of a few lines ends a program
that only wondered whether it is a file. `os.path` answers no: for such a word, for one with the character of code 0,
and in a folder that may not be read.
"""

from __future__ import annotations

import os
from pathlib import Path


def path_of(word: str) -> Path:
    """The path of a word, `~` replaced where there is such a home folder."""
    return Path(os.path.expanduser(word))  # noqa: PTH111  `Path.expanduser` raises for a user that is not there


def is_there(path: str | Path) -> bool:
    """Whether anything lies there."""
    return os.path.exists(path)  # noqa: PTH110  see the top


def is_file(path: str | Path) -> bool:
    """Whether a file lies there."""
    return os.path.isfile(path)  # noqa: PTH113  see the top


def is_folder(path: str | Path) -> bool:
    """Whether a folder lies there."""
    return os.path.isdir(path)  # noqa: PTH112  see the top


def link_out(folder: Path) -> Path | None:
    """The first file of a folder that is a link to somewhere else: a model of a stranger could name any file so.

    The cache of the Hugging Face hub is made of links, from `snapshots/REVISION` to `blobs` beside it: those are none.
    """
    root = folder.resolve()
    homes = (root, root.parents[1] / "blobs") if root.parent.name == "snapshots" else (root,)
    links = (path for path in sorted(folder.iterdir()) if path.is_symlink())
    return next((path for path in links if not any(map(Path(os.path.realpath(path)).is_relative_to, homes))), None)
