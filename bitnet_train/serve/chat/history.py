"""What was typed before, for the arrow keys: in the run's folder or the file that was named, else in memory.

prompt_toolkit's own form: a comment with the time, and a `+` before each line. The file is its owner's alone, for
people type what they would not show. A message of more than 10,000 characters is not kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_train.errors import ConfigError

if TYPE_CHECKING:
    from prompt_toolkit.history import History

NAME = "chat_history"
_MOST_CHARACTERS = 10_000
_MOST_BYTES = 16 << 20


def open_history(named: str | None, run: Path | None, tell: Callable[[str], object]) -> History:
    """Return the history of a file: that was `named` (`chat.history`), else of the run, else of this call alone.

    Raises ConfigError where a file that was named cannot be kept; that of a run is told, and done without.
    """
    from prompt_toolkit.history import InMemoryHistory

    path = Path(named) if named is not None else None if run is None else run / NAME
    if path is None:
        return InMemoryHistory()
    fault = _fault(path)
    if fault is None:
        return _in_file(path, tell)
    if named is not None:
        raise ConfigError(f"`chat.history={named}` cannot be kept: {fault}. Name a file in a folder that is there.")
    tell(f"What is typed is not kept for next time: {path}: {fault}.")
    return InMemoryHistory()


def _fault(path: Path) -> str | None:
    """Make the file where it is not there; say why it cannot be written, or is none of a history."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o600))
        begins = path.read_bytes()[:2] if path.is_file() and path.stat().st_size <= _MOST_BYTES else None
    except OSError as error:
        return str(error.strerror or error).lower()
    if begins is None:
        return f"it is no plain file of at most {_MOST_BYTES >> 20} MiB"
    return None if begins in (b"", b"\n#") else "it holds something else than a history"


def _in_file(path: Path, tell: Callable[[str], object]) -> History:
    from prompt_toolkit.history import FileHistory

    class Kept(FileHistory):
        """A history that does without its disk where that refuses."""

        def store_string(self, string: str) -> None:
            if len(string) > _MOST_CHARACTERS:
                return
            try:
                super().store_string(string)
            except OSError as error:
                tell(f"What is typed is not kept any more: {error}.")

    return Kept(str(path))
