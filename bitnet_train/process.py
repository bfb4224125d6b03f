"""Which process is which: an id is used again, so a process is its machine, its id, and when it was started.

The start is a mark to compare, not a time: on Linux the clock ticks since the machine started, and which start of the
machine that was; elsewhere there is none, and the id alone decides. A process that has ended and that nobody waited for
(a zombie) still has its id; it does not live.

Two processes that come to a folder at once are told apart by a lock of the system on it, held for a moment only
(`one_at_a_time`): one that is held all along does not reach over every network file system, and none says who holds it.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19  # fields of /proc/PID/stat after the name, which may hold blanks and brackets
_ENDED = "ZX"


@dataclass(frozen=True)
class Process:
    """One process of one machine; `start` is empty where it cannot be told."""

    host: str
    pid: int
    start: str = ""

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine: of another one nothing can be told."""
        return self.host == platform.node()

    @property
    def lives(self) -> bool:
        """Whether it runs; True too where that cannot be told, which is on another machine."""
        if not self.is_here:
            return True
        fields = _stat(self.pid)
        if fields is None:
            return _answers(self.pid)
        return fields[_STATE] not in _ENDED and (not self.start or self.start == _mark(fields))


def this_process() -> Process:
    """Return the process that asks."""
    fields = _stat(os.getpid())
    return Process(platform.node(), os.getpid(), "" if fields is None else _mark(fields))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for whoever else is in such a block with this folder, on this machine or, where its disk can, on another."""
    import fcntl  # which Windows has not, and importing this file must not need

    held = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without such locks
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _stat(pid: int) -> list[str] | None:
    try:
        return (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _mark(fields: list[str]) -> str:
    try:
        machine_start = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        machine_start = ""
    return hashlib.sha256(f"{machine_start} {fields[_START]}".encode()).hexdigest()[:12]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
