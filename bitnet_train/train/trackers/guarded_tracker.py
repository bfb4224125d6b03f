"""A tracker that can neither end a run nor hold it up: it works on a thread of its own, and is dropped when it fails.

Trackers talk to servers: in their constructors, while figures are logged, and at the end. Here every call is put in a
line that one thread works off. The run waits for it twice: a second at the start, so that a setting that cannot work is
refused before step 1, and some seconds at the end, so that the last figures arrive. What fails, or is not done by then,
is said once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers.redaction import redact_text

START_PATIENCE_S = 1.0
FINISH_PATIENCE_S = 15.0  # for what a server that answers still has to be sent
PENDING_CALLS = 10_000  # of a tracker that has stopped answering: some megabytes

Say = Callable[[str], object]


def say_on_stderr(text: str) -> None:
    """Write one note for people."""
    print(f"note: {text}", file=sys.stderr)


class GuardedTracker(Logger):
    """Hands every call to the logger that `make` builds, in order, on a thread; a failed call is the last one."""

    def __init__(self, kind: str, make: Callable[[], Logger], say: Say = say_on_stderr) -> None:
        super().__init__()
        self._kind, self._make, self._say = kind, make, say
        self._calls: Queue[Callable[[], object] | Event] = Queue(PENDING_CALLS)
        self._inner: Any = None
        self._refusal: ConfigError | None = None
        self._gave_up = self._is_starting = False

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
        """Build the logger; ConfigError where its settings cannot work and that is known within some seconds."""
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
        self._put(lambda: self._inner.log_metrics(figures, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hand the configuration on; whoever calls has redacted it."""
        self._put(lambda: self._inner.log_hyperparams(params, *args, **kwargs))

    @rank_zero_only
    def save(self) -> None:
        """Have what was logged written."""
        self._put(lambda: self._inner.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the tracker's run, and wait some seconds for it."""
        self._put(lambda: self._inner.finalize(status))
        if not self._wait(FINISH_PATIENCE_S):
            self._give_up(f"is not done {FINISH_PATIENCE_S:.0f} s after the end")

    def _build(self) -> None:
        self._inner = self._make()

    def _put(self, call: Callable[[], object] | Event) -> None:
        try:
            self._calls.put_nowait(call)
        except Full:
            self._give_up(f"has left {PENDING_CALLS:,} calls unanswered")

    def _wait(self, seconds: float) -> bool:
        """Wait until the calls so far were made or dropped; False if that takes longer than so many seconds."""
        done = Event()
        self._put(done)
        return done.wait(0 if self._gave_up else seconds)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if isinstance(call, Event):
                call.set()
            elif not self._gave_up:
                self._try(call)

    def _try(self, call: Callable[[], object]) -> None:
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
