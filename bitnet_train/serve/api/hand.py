"""One worker, held by the server: requests go to it, its events to those who wait for them, and it may end any time.

Events of one text come in order. When the process ends, everyone who waits gets an error, and the next request starts
another one (`models`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.child import Child, ChildGone, Limits

WORKER = "bitnet_train.serve.worker"
_MOST_LAST_BYTES = 2000
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Start:
    """How a worker is started: the argument that it gets, its limits, the file of what it prints."""

    argument: Mapping[str, Any]
    limits: Limits
    log: Path


class LoadError(Exception):
    """A worker that could not load its model; the text is for the server's log."""


@dataclass
class Asked:
    """The texts of one request: their `keys` in the worker's words, and the events that came."""

    keys: list[str]
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def place(self, event: Event) -> int:
        """Return which of the texts an event is about."""
        return self.keys.index(event["id"])


class Hand:
    """A running worker; make one with `Hand.start`."""

    def __init__(self, child: Child, messages: Any, facts: Mapping[str, Any]) -> None:
        self._child, self._messages, self.facts = child, messages, facts
        self._numbers = itertools.count()
        self._waiting: dict[str, Asked] = {}
        self.state: Mapping[str, Any] = {}
        self.gone = ""
        self._ending: asyncio.Future[None] | None = None
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, start: Start) -> Hand:
        """Start a worker and wait until its model is loaded. Raises LoadError."""
        child = await Child.start(WORKER, start.argument, start.limits, start.log)
        try:
            messages = child.__aiter__()
            first = await anext(messages, {})
        except BaseException:  # the server ends
            await child.stop(0)
            raise
        if "ready" not in first:
            await child.stop()
            ended = f"its process ended while it loaded: {child.reason}.{last_words(start.log)}"
            raise LoadError(first.get("failed") or ended)
        return cls(child, messages, first["ready"])

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._child.pid

    @property
    def num_texts(self) -> int:
        """Texts that are written or wait."""
        return len(self._waiting)

    @contextmanager
    def asking(self, count: int) -> Iterator[Asked]:
        """Yield the place of `count` texts; those that have not ended when the block does are cancelled."""
        asked = Asked([str(next(self._numbers)) for _ in range(count)])
        self._waiting.update(dict.fromkeys(asked.keys, asked))
        try:
            yield asked
        finally:
            for key in asked.keys:
                if self._waiting.pop(key, None) is not None and not self.gone:
                    self._cancel(key)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Tell the worker something; ApiError 503 when it has ended."""
        try:
            if self.gone:
                raise ChildGone(self.gone)
            await self._child.send(message)
        except ChildGone:
            raise _gone() from None

    async def stop(self) -> None:
        """End the worker."""
        await self._child.stop()
        await self._listener

    def give_up(self) -> None:
        """End a worker that says nothing any more, without waiting."""
        self._ending = asyncio.ensure_future(self._child.stop(0))

    def _cancel(self, key: str) -> None:
        with suppress(ChildGone):
            task = asyncio.ensure_future(self._child.send({"do": "cancel", "id": key}))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _listen(self) -> None:
        async for message in self._messages:
            self.state = message.get("state", self.state)
            for event in message.get("events", ()):
                self._tell(event)
        self.gone = self._child.reason or "it ended"
        error = _gone()
        for key, asked in list(self._waiting.items()):
            event = {"id": key, "is": "error", "status": error.status, "code": error.code, "message": error.message}
            asked.events.put_nowait(event)
        self._waiting.clear()

    def _tell(self, event: Event) -> None:
        is_last = event["is"] in ("done", "error", "answer")
        asked = self._waiting.pop(event["id"], None) if is_last else self._waiting.get(event["id"])
        if asked is not None:
            asked.events.put_nowait(event)


def last_words(log: Path) -> str:
    """Return the end of what a process printed, on lines of their own; empty where it printed nothing."""
    try:
        with log.open("rb") as printed:
            printed.seek(max(log.stat().st_size - _MOST_LAST_BYTES, 0))
            words = printed.read().decode(errors="replace").strip()
    except OSError:
        return ""
    return f"\n{words}" if words else ""


def _gone() -> ApiError:
    return ApiError(
        503, "The process of this model ended. Ask again: another one is started.", code="worker_gone", retry_after=1
    )
