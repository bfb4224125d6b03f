"""A tracker that can neither end a run nor hold it up: it works on a thread of its own, and is dropped when it fails.

Trackers talk to servers: in their constructors, while figures are logged, and at the end. Here every call is put in a
line that one thread works off. The run waits for it twice: a second at the start, so that a setting that cannot work is
refused before step 1, and some seconds at the end, so that the last figures arrive. What fails, or is not done by then,
is said once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import monotonic
from typing import Any
from zlib import crc32

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers.redaction import redact_text
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracker import Artefact, Figure, Line, Status, Tracker

START_PATIENCE_S = 1.0
FINISH_PATIENCE_S = 15.0  # for what a server that answers still has to be sent
PENDING_CALLS = 10_000  # of a tracker that has stopped answering: some megabytes

Say = Callable[[str], object]


def say_on_stderr(text: str) -> None:
    """Write one note for people."""
    print(f"note: {text}", file=sys.stderr)


class GuardedTracker(Logger):
    """Hands every call to the tracker that `make` builds, in order, on a thread; a failed call is the last one.

    `told` is what the tracker knows of the run: a line that it has is not told again. Where `is_held`, the end of
    training is not yet the end of the tracker's run; `close` is.
    """

    def __init__(
        self, kind: str, make: Callable[[], Tracker], say: Say = say_on_stderr, told: Told | None = None
    ) -> None:
        super().__init__()
        self._kind, self._make, self._say, self._told = kind, make, say, told
        self._calls: Queue[tuple[Callable[[], object] | Event, bool]] = Queue(PENDING_CALLS)
        self._inner: Any = None
        self._refusal: ConfigError | None = None
        self._gave_up = self._is_starting = False
        self._status: Status = "success"
        self._last_step = 0
        self._lines: list[Line] = []
        self._since = 0.0
        self.is_held = False

    @property
    def name(self) -> str:
        """Return the kind of tracker."""
        return self._kind

    @property
    def version(self) -> str:
        """Return nothing: a run has one tracker."""
        return ""

    @rank_zero_only
    def start(self) -> None:
        """Build the tracker; ConfigError where its settings cannot work and that is known within some seconds."""
        self._is_starting = True
        Thread(target=self._work, name=f"tracker {self._kind}", daemon=True).start()
        self._put(self._build)
        self._wait(START_PATIENCE_S)
        self._is_starting = False
        if self._refusal is not None:
            raise self._refusal

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand figures on."""
        figures = dict(metrics)
        self._put(lambda: self._log(figures, step), gathers=True)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hand the configuration on; whoever calls has redacted it."""
        self._put(lambda: self._inner.configure(params))

    @rank_zero_only
    def catch_up(self, lines: Callable[[], Sequence[tuple[int, Mapping[str, float]]]]) -> None:
        """Tell the tracker those of these lines, a step and its figures each, that it has missed."""

        def tell() -> None:
            for step, figures in lines():
                self._log(figures, step)

        self._put(tell, gathers=True)

    @rank_zero_only
    def sample(self, step: int, prompt: str, text: str) -> None:
        """Hand on what the model wrote on a prompt after a step."""
        told, mark = self._told, {f"sample {crc32(prompt.encode()):08x}": 0}

        def tell() -> None:
            if told is None or not told.has(mark, step):
                self._inner.sample(step, redact_text(prompt), redact_text(text))
                if told is not None:
                    told.note(mark, step)

        self._put(tell)

    @rank_zero_only
    def summarise(self, figures: Mapping[str, Figure]) -> None:
        """Hand on what the run came to, by name."""
        closing = dict(figures)
        self._put(lambda: self._inner.summarise(closing, self._last_step))

    @rank_zero_only
    def keep(self, artefact: Artefact) -> None:
        """Hand on where something lies that the run read or wrote."""
        self._put(lambda: self._inner.keep(artefact))

    @rank_zero_only
    def save(self) -> None:
        """Have what was logged written, once it is handed on."""
        self._put(self._save, gathers=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the tracker's run and wait some seconds for it, unless it is held for what comes after training."""
        if status != "success":
            self._status = "failed"
        if not self.is_held:
            self.close()

    @rank_zero_only
    def close(self, status: Status = "success") -> None:
        """End the tracker's run, and wait some seconds for it."""
        self.is_held = False
        ended: Status = status if status != "success" else self._status
        self._put(lambda: self._finish(ended))
        if not self._wait(FINISH_PATIENCE_S):
            self._give_up(f"is not done {FINISH_PATIENCE_S:.0f} s after the end")

    def _build(self) -> None:
        self._inner = self._make()
        if self._told is not None:
            self._told.keep()
            self._last_step = self._told.last_step

    def _log(self, figures: Mapping[str, float], step: int | None) -> None:
        if self._told is not None and step is not None and self._told.has(figures, step):
            return
        if not self._lines:
            self._since = monotonic()
        self._lines.append((step, figures))
        self._last_step = max(self._last_step, step or 0)

    def _hand_on(self) -> None:
        """Hand the lines that were gathered to the tracker."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        self._inner.log(lines)
        for step, figures in lines:
            if self._told is not None and step is not None:
                self._told.note(figures, step)

    def _save(self) -> None:
        if not self._lines:
            self._inner.save()

    def _gathers(self) -> bool:
        return bool(self._lines) and monotonic() - self._since < self._inner.gathers_s

    def _finish(self, status: Status) -> None:
        self._inner.finish(status)
        if self._told is not None:
            self._told.close()

    def _put(self, call: Callable[[], object] | Event, *, gathers: bool = False) -> None:
        """Put a call in line; before one that gathers no lines, those gathered so far are handed on."""
        try:
            self._calls.put_nowait((call, gathers))
        except Full:
            self._give_up(f"has left {PENDING_CALLS:,} calls unanswered")

    def _wait(self, seconds: float) -> bool:
        """Wait until the calls so far were made or dropped; False if that takes longer than so many seconds."""
        done = Event()
        self._put(done)
        return done.wait(0 if self._gave_up else seconds)

    def _work(self) -> None:
        while True:
            try:
                call, gathers = self._calls.get(timeout=self._inner.gathers_s if self._lines else None)
            except Empty:
                self._try(self._hand_on)
                continue
            if not gathers:
                self._try(self._hand_on)
            if isinstance(call, Event):
                call.set()
                continue
            self._try(call)
            if self._lines and not self._gathers():
                self._try(self._hand_on)

    def _try(self, call: Callable[[], object]) -> None:
        if self._gave_up:
            self._lines = []
            return
        try:
            call()
        except Exception as error:
            if isinstance(error, ConfigError) and self._is_starting:
                self._refusal, self._gave_up = error, True
            else:
                self._give_up(f"failed with {type(error).__name__}: {' '.join(redact_text(str(error)).split())[:300]}")

    def _give_up(self, what: str) -> None:
        if not self._gave_up:
            self._gave_up = True
            self._say(f"the tracker {self._kind} {what}. The run goes on without it; figures are in metrics.jsonl.")
