"""Commands of a test: real processes of the real command line, forked from a warm one, with what goes wrong in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.faults import injected, warm
from tests.faults.injected import Fault

LONGEST_S = 120.0  # far beyond what any command here takes: what waits for ever ends, a slow machine does not
SET_APART = ("BITNET_DEBUG", "HF_HUB_OFFLINE", "RANK", "LOCAL_RANK", "WORLD_SIZE")  # a user has none of them set


def environment() -> dict[str, str]:
    """Return what commands find: this process's environment without what tests set, and one thread."""
    return {name: value for name, value in os.environ.items() if name not in SET_APART} | {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Done:
    """How a command ended; `code` is negative for a signal, None where it had to be killed."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed, in one line with single spaces."""
        return " ".join((self.out + self.err).split())


@dataclass(frozen=True)
class Running:
    """A command that was started."""

    pid: int
    warm: Warm
    files: dict[str, Path]
    num_faults: int

    def wait(self, seconds: float = LONGEST_S, *, fired: bool = True) -> Done:
        """Wait for the end; a fault must have happened by then, or with `fired=False` none."""
        code = self.warm.ask(do="wait", pid=self.pid, seconds=seconds)
        texts = {name: path.read_text() if path.exists() else "" for name, path in self.files.items()}
        if code == warm.NO_FAULT and injected.NOT_PERMITTED in texts["err"]:
            pytest.skip(injected.NOT_PERMITTED)
        assert code != warm.NO_FAULT, texts["err"]
        if self.num_faults:
            happened = "the fault happened" if texts["fired"] else "the fault never happened"
            assert bool(texts["fired"]) == fired, f"{happened}; {code}: {texts['err'][-3000:]}"
        return Done(code, texts["out"], texts["err"])


class Warm:
    """The warm process; `run` a command in it, or `start` and wait."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, warm.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self._number = count()

    def ask(self, **order: Any) -> Any:
        """Send an order and return its answer."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        orders.write(json.dumps(order) + "\n")
        orders.flush()
        answer = answers.readline()
        assert answer, "the warm process is gone"
        return json.loads(answer)

    def start(self, folder: Path, *words: str | Path, faults: tuple[Fault, ...] = (), **further: str) -> Running:
        """Start `bitnet-train WORDS`, in `folder`, where its output is kept too; `further` is set there."""
        own = folder / f".command-{next(self._number)}"
        own.mkdir()
        files = {name: own / name for name in ("out", "err", "fired")}
        given = environment() | {injected.FIRED: str(files["fired"]), **further}
        pid = self.ask(
            do="start",
            words=[str(word) for word in words],
            cwd=str(folder),
            out=str(files["out"]),
            err=str(files["err"]),
            environment=given,
            faults=[injected.as_json(fault) for fault in faults],
        )
        return Running(pid, self, files, len(faults))

    def run(self, folder: Path, *words: str | Path, faults: tuple[Fault, ...] = (), **further: str) -> Done:
        """Run `bitnet-train WORDS` to its end."""
        return self.start(folder, *words, faults=faults, **further).wait()

    def close(self) -> None:
        """End the process; it has no command left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def wait_for(path: Path, running: Running) -> None:
    """Wait until a file is there that a running command writes."""
    deadline = time.monotonic() + LONGEST_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come: {running.files['err'].read_text()[-2000:]}"
        time.sleep(0.01)
