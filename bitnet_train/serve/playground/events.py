"""What a job says while it works: numbered events, kept, so that a page that was reloaded reads on where it was.

Only so many are kept, and of how far it was only what is newest; the first go first, and who asks for them gets what is
left.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

MOST_EVENTS = 6000
PROGRESS = "progress"
HEARTBEAT_S = 10.0  # a line between events, so that neither side takes a long silence for an end


@dataclass(frozen=True)
class Event:
    """One of them."""

    id: int
    name: str
    data: Mapping[str, Any]

    def as_stream(self) -> str:
        """Return it as `text/event-stream` has it."""
        return f"id: {self.id}\nevent: {self.name}\ndata: {json.dumps(self.data)}\n\n"


class EventLog:
    """The events of one job; for one event loop."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._events: deque[Event] = deque(maxlen=most)
        self._last = 0
        self._news = asyncio.Event()
        self.is_closed = False

    def add(self, name: str, data: Mapping[str, Any], number: int | None = None) -> Event:
        """Keep an event and wake those who follow; `number` of one that was kept before."""
        self._last = self._last + 1 if number is None else number
        event = Event(self._last, name, data)
        if name == PROGRESS and self._events and self._events[-1].name == PROGRESS:
            self._events.pop()  # of how far it was only the last counts
        self._events.append(event)
        self._wake()
        return event

    def close(self) -> None:
        """Say that no more will come."""
        self.is_closed = True
        self._wake()

    def after(self, number: int) -> list[Event]:
        """Return those with a larger number."""
        return [event for event in self._events if event.id > number]

    async def follow(self, number: int = 0) -> AsyncIterator[Event | None]:
        """Yield events with a larger number, those that come too, to the end of the job; None where nothing comes."""
        while True:
            news, is_last = self._news, self.is_closed
            for event in self.after(number):
                number = event.id
                yield event
            if is_last:
                return
            try:
                await asyncio.wait_for(news.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield None

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
