"""What an attempt may cost and touch: memory, seconds, and the files and processes that it reaches for.

`Opened` sees files that Python opens (an audit hook) and those that compiled code opens in one folder (inotify, on
Linux): safetensors opens its files in Rust, where no hook of Python looks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LARGEST_BYTES = 256 << 20
_STATM = Path("/proc/self/statm")
_IN_OPEN = 0x20
_REACHES_OUT = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "pty.spawn")
_REACHES_OUT += ("subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")
_listening: list[list[tuple[str, str]]] = []  # of `audited` blocks: a hook cannot be taken back


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process map `LARGEST_BYTES` more than it has, and no byte beyond; no limit without /proc."""
    if not _STATM.is_file():
        yield
        return
    mapped = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LARGEST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def audited() -> Iterator[list[tuple[str, str]]]:
    """Collect (event, first argument) of what is opened, started and called up inside the block."""
    if not _listening:
        _listening.append([])
        sys.addaudithook(_hear)
    events: list[tuple[str, str]] = []
    _listening.append(events)
    try:
        yield events
    finally:
        _listening.remove(events)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if len(_listening) > 1 and (event == "open" or event in _REACHES_OUT):
        first = arguments[0] if arguments else ""
        for events in _listening[1:]:
            events.append((event, os.fsdecode(first) if isinstance(first, bytes) else str(first)))


def reached_out(events: list[tuple[str, str]]) -> list[str]:
    """Of what was heard: processes that were started, and the network."""
    return [f"{event}: {first[:80]}" for event, first in events if event in _REACHES_OUT]


def opened_outside(events: list[tuple[str, str]], allowed: tuple[Path, ...]) -> list[str]:
    """Of what was heard: files opened that lie in none of the `allowed` folders; numbers are open files already."""
    paths = [Path(first).absolute() for event, first in events if event == "open" and not first.lstrip("-").isdigit()]
    inside = [folder.resolve() for folder in allowed]
    return [str(path) for path in paths if not any(path.resolve().is_relative_to(folder) for folder in inside)]


class Bait:
    """A folder in which nothing may be opened, whoever opens it; without inotify it is never found out."""

    def __init__(self, folder: Path) -> None:
        self._watch = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if libc.inotify_add_watch(self._watch, os.fsencode(folder), _IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "cannot watch", str(folder))

    def was_opened(self) -> bool:
        """Whether a file of the folder was opened since it was asked last."""
        try:
            return self._watch >= 0 and bool(os.read(self._watch, 1 << 16))
        except BlockingIOError:
            return False
