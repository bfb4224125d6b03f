"""A process of its own that speaks in JSON, one object a line, both ways: from outside (`Child`), and its own side.

What may crash, hang, or take all memory happens there: a model that somebody uploaded is parsed by a child, and the
server that waits for it answers on. The child ends when the process that started it does, in whatever way that is.

    child = await Child.start("bitnet_train.serve.worker", {"model": ...}, Limits(memory_bytes=4 << 30))
    await child.send({"op": "tokenize", "text": "hi"})
    async for message in child: ...
    print(child.reason)                          # once it has ended: "it was ended by SIGKILL"

The child's side, in that module, run as a program:

    argument = begin()
    for message in hear():
        say({"ids": [1, 2]})
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from bitnet_train.errors import BitnetTrainError
from bitnet_train.json_text import parse_json

MOST_LINE_BYTES = 64 << 20
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl(2)


class ChildGone(BitnetTrainError):
    """The child has ended; `str` says why."""


@dataclass(frozen=True)
class Limits:
    """What the kernel lets a child use; None is no limit. Where the system has no such limit it is not held.

    memory_bytes: of addresses, so mapped files and reserved room count too. cpu_seconds: of computing, all threads.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    open_files: int | None = None


class Child:
    """A child that was started; for one event loop. Messages that it says are read by one task."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._fault = ""

    @classmethod
    async def start(
        cls, module: str, argument: Mapping[str, Any], limits: Limits | None = None, log: Path | None = None
    ) -> Child:
        """Run `python -m module`, which gets `argument` from `begin`; what it prints is appended to the file `log`."""
        with (log or Path(os.devnull)).open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=out,
                limit=MOST_LINE_BYTES,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        child = cls(process)
        await child.send({"argument": dict(argument), "limits": asdict(limits or Limits()), "parent": os.getpid()})
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        return self._process.returncode

    @property
    def reason(self) -> str:
        """Why it ended, for the middle of a sentence; empty while it lives."""
        code = self.returncode
        if code is None:
            return ""
        if self._fault:
            return self._fault
        return f"it was ended by {_signal_name(-code)}" if code < 0 else f"it ended with status {code}"

    async def send(self, message: Mapping[str, Any]) -> None:
        """Tell it something. Raises ChildGone when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_line(message))
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):  # RuntimeError: uvloop's, of a pipe that is closed
            await self._process.wait()
            raise ChildGone(f"The process cannot be asked: {self.reason}.") from None

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it says until it has ended. One that says what is no message is ended."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
                if not line:
                    break
                message = parse_json(line)
                if not isinstance(message, dict):
                    raise ValueError("not an object")
            except ValueError:  # no JSON, no object, or a line without end
                self._fault = "it was ended, for it said what is no message"
                self._kill()
                break
            yield message
        await self._process.wait()

    async def stop(self, grace_seconds: float = 2.0) -> None:
        """End it: by the end of its input, by SIGTERM a moment later, by SIGKILL at last; return when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        for end in (lambda: None, self._terminate):
            end()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_seconds)
                return
        self._kill()
        await self._process.wait()

    def _terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class _Voice:
    """Where the child's messages go: what was its standard output, before `begin` gave it to whoever prints."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out: IO[bytes] | None = None

    def take(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)

    def say(self, line: bytes) -> None:
        assert self._out is not None, "`begin` comes first"
        rest = memoryview(line)
        with self._lock:
            while rest:
                rest = rest[self._out.write(rest) :]


_voice = _Voice()


def begin() -> dict[str, Any]:
    """Take the child's side: return the argument of `Child.start`, with its limits held from here on.

    Standard output is for messages alone: what anything prints there goes to standard error.
    """
    _voice.take()
    given = parse_json(sys.stdin.buffer.readline())
    _end_with(given["parent"])
    _hold(Limits(**given["limits"]))
    return given["argument"]


def hear() -> Iterator[dict[str, Any]]:
    """Yield the messages that the parent sends, until it closes the pipe or ends."""
    for line in sys.stdin.buffer:
        yield parse_json(line)


def say(message: Mapping[str, Any]) -> None:
    """Tell the parent something; from any thread. ValueError for a number that is not finite, which JSON has not."""
    _voice.say(_line(message))


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _end_with(parent: int) -> None:
    """Have the kernel end this process with its parent, even while it computes; on Linux, elsewhere input ends."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was said
        os._exit(1)


def _hold(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    kinds = {"memory_bytes": "RLIMIT_AS", "cpu_seconds": "RLIMIT_CPU", "open_files": "RLIMIT_NOFILE"}
    for name, most in asdict(limits).items():
        kind = getattr(resource, kinds[name], None)
        if most is not None and kind is not None:
            highest = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if highest < 0 else min(most, highest), highest))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
