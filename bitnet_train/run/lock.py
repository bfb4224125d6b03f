"""The lock of a run directory: one process writes in it at a time, and says who it is.

    RUN/.lock    {"host": "node7", "pid": 4711, "start": "0f3a...", "what": "bitnet-train train", "since": "2026-..."}

An owner that is dead on this machine is followed without a word. What lies in a lock of another machine cannot be
asked whether it lives, so that one is refused with the file to delete.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bitnet_train.disk import writing
from bitnet_train.errors import RunInUseError
from bitnet_train.json_text import parse_json
from bitnet_train.process import Process, one_at_a_time, this_process
from bitnet_train.whole import write_whole

LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, with what command, and since when."""

    process: Process
    what: str
    since: str

    def to_json(self) -> str:
        """Return the content of a lock file."""
        return json.dumps({**asdict(self.process), "what": self.what, "since": self.since}) + "\n"


@contextmanager
def locked(root: Path, what: str) -> Iterator[None]:
    """Hold the lock of the folder `root`, which is there; `what` is the command.

    Raises RunInUseError naming the owner where another process holds it, DiskError where the folder cannot be written.
    """
    own = Owner(this_process(), what, time.strftime("%Y-%m-%d %H:%M:%S"))
    _take(root, own)
    try:
        yield
    finally:
        _give_back(root, own)


def owner_of(root: Path) -> Owner | None:
    """Return who holds the lock of a folder; None where nobody does, or the file says nothing."""
    try:
        said = parse_json((root / LOCK_FILE).read_text(encoding="utf-8"))
        return Owner(Process(str(said["host"]), int(said["pid"]), str(said["start"])), said["what"], said["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _take(root: Path, own: Owner) -> None:
    with writing(root), one_at_a_time(root):
        owner = owner_of(root)
        if owner is not None and owner.process.lives:
            raise RunInUseError(_refusal(root, owner))
        write_whole(root / LOCK_FILE, own.to_json())


def _give_back(root: Path, own: Owner) -> None:
    if this_process() != own.process:  # a fork of the owner
        return
    with suppress(OSError), one_at_a_time(root):
        if owner_of(root) == own:
            (root / LOCK_FILE).unlink()


def _refusal(root: Path, owner: Owner) -> str:
    who = f"`{owner.what}`, process {owner.process.pid} on {owner.process.host}, since {owner.since}"
    told = f"{root} is in use: {who}. Two that write in one run would spoil it."
    if owner.process.is_here:
        return f"{told} Wait for that one or end it, or name another `run.dir`."
    return (
        f"{told} Whether that one still runs cannot be seen from {platform.node()}: wait for it or end it, or name "
        f"another `run.dir`. If it is gone, delete {root / LOCK_FILE}."
    )
