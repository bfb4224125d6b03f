"""The text everyone has: the running interpreter's own standard library, one module a document.

About 10 MB of Python in CPython 3.11-3.13. A module is *held out* when the first byte of the SHA-256 of its
relative path is below 13 (5 % of all modules), so the split is the same on every machine and for every Python
version, and the bundled tiny model, which was pretrained on the train split, has never seen a held-out module.

Left out: demo and editor packages and generated tables (`encodings`, `pydoc_data`), which are data rather than
prose or code, and, unless asked for, the 19 MB of regression tests.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation"]

_HELD_OUT_BELOW = 13  # of 256: 5 % of modules
_LEFT_OUT_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "ensurepip",
    "idle_test",
    "idlelib",
    "pydoc_data",
    "site-packages",
    "turtledemo",
}
_TEST_FOLDERS = {"test", "tests"}


def is_held_out(relative_path: str) -> bool:
    """Tell whether the module at this `/`-separated path belongs to the validation split."""
    return hashlib.sha256(relative_path.encode()).digest()[0] < _HELD_OUT_BELOW


def stdlib_documents(split: Split, *, include_tests: bool = False) -> Iterator[str]:
    """Yield the source text of every module of one split, in sorted path order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = _LEFT_OUT_FOLDERS if include_tests else _LEFT_OUT_FOLDERS | _TEST_FOLDERS
    for path in sorted(_modules(root, left_out)):
        if is_held_out(path.relative_to(root).as_posix()) == (split == "validation"):
            text = path.read_text(encoding="utf-8", errors="ignore")
            if text.strip():
                yield text


def _modules(root: Path, left_out: set[str]) -> Iterator[Path]:
    """Yield the modules below `root` without entering the folders left out: other packages may be ten times as many."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))
