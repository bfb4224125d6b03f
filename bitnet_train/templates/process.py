"""The process that renders (`program`), from outside: one for this process, started at the first chat and used for all.

It costs a tenth of a second once, and for each answer the time in which the machine goes to another process and back,
so the texts of one chat are asked for together (`ahead`). It has a session of its own, so Ctrl-C is not
its business, and ends when its input does, which is when this process ends in whatever way. Nothing here looks at a
clock: what a rendering may use is counted by the kernel, in seconds of computing.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bitnet_train.errors import DataError

_PROGRAM = Path(__file__).with_name("program.py")
SECONDS = 10.0
MOST_BYTES = 1 << 30


class RenderError(DataError):
    """A template that refuses what it is given, breaks, or does not end; `reason` is for the middle of a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The chat template of this model cannot be used: {reason}.")
        self.reason = reason


class Renderer:
    """The process, started when it is needed and again when it was ended; any thread may ask.

    seconds: of computing for one rendering. num_bytes: of memory, the interpreter included.
    """

    def __init__(self, seconds: float = SECONDS, num_bytes: int = MOST_BYTES) -> None:
        self._limits = {"seconds": seconds, "bytes": num_bytes}
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._sent: dict[str, str] = {}  # source -> key, of what the process knows
        self._ended: dict[str, str] = {}  # source -> why the process was ended by it
        self._ahead: dict[tuple[str, str], dict[str, str]] = {}  # answers that nobody has asked for yet
        self._lock = threading.Lock()

    def render(self, source: str, names: Mapping[str, Any]) -> str:
        """Return the text. Raises RenderError; a template that was once ended is not tried again."""
        given = _written(names)
        with self._lock:
            found = self._ahead.get((source, given)) or self._ask(source, [given])[0]
        if "error" in found:
            raise RenderError(found["error"])
        return found["text"]

    def ahead(self, source: str, many: Iterable[Mapping[str, Any]]) -> None:
        """Have texts rendered at once that `render` will be asked for next; errors are raised there."""
        given = list(dict.fromkeys(map(_written, many)))
        with self._lock:
            self._ahead = dict(zip(((source, each) for each in given), self._ask(source, given), strict=True))

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()

    def _ask(self, source: str, given: list[str]) -> list[dict[str, str]]:
        if source not in self._ended:
            answer = self._answer(source, given)
            if answer:
                return json.loads(answer)
            self._ended[source] = self._end()
        return [{"error": self._ended[source]}] * len(given)

    def _answer(self, source: str, given: list[str]) -> bytes:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        key = self._sent.get(source)
        line = (
            f"[{json.dumps(key or str(len(self._sent)))}, {json.dumps(None if key else source)}, [{','.join(given)}]]"
        )
        self._sent.setdefault(source, str(len(self._sent)))
        try:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return process.stdout.readline()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._owner, self._sent = os.getpid(), {}
        process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"path": sys.path, **self._limits}).encode() + b"\n")
        self._process = process
        return process

    def _end(self) -> str:
        """Take leave of a process that gave no answer, and say why it did not."""
        process = self._process
        assert process is not None
        self.close()
        if process.returncode == -getattr(signal, "SIGPROF", 0):
            return f"it did not end within {self._limits['seconds']:g} seconds of computing"
        return f"the process that rendered it ended with {process.returncode}"


def _written(names: Mapping[str, Any]) -> str:
    return json.dumps(names, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON does not know, as transformers gives it to a template: a number of NumPy's as one, else its kind."""
    return value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else f"<{type(value).__name__}>"


renderer = Renderer()
atexit.register(lambda: renderer.close())
