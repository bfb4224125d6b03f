"""Events are numbered, kept up to a bound, and followed to the end by whoever asks, whenever."""

from __future__ import annotations

import asyncio

from bitnet_train.serve.playground import events
from bitnet_train.serve.playground.events import EventLog


async def followed(log: EventLog, after: int = 0) -> list[int | None]:
    return [None if event is None else event.id async for event in log.follow(after)]


def test_who_follows_gets_what_is_there_and_what_comes() -> None:
    async def story() -> list[list[int | None]]:
        log = EventLog()
        log.add("log", {"text": "1"})
        early, late = asyncio.create_task(followed(log)), asyncio.create_task(followed(log, 1))
        await asyncio.sleep(0)
        log.add("log", {"text": "2"})
        await asyncio.sleep(0)
        log.add("log", {"text": "3"})
        log.close()
        return [await early, await late, await followed(log, 2), await followed(log, 99)]

    assert asyncio.run(story()) == [[1, 2, 3], [2, 3], [3], []]


def test_the_oldest_go_first() -> None:
    async def story() -> list[int | None]:
        log = EventLog(most=3)
        for _ in range(10):
            log.add("log", {})
        log.close()
        return await followed(log)

    assert asyncio.run(story()) == [8, 9, 10]


def test_of_how_far_it_was_only_the_newest_is_kept() -> None:
    async def story() -> list[tuple[int, str]]:
        log = EventLog()
        for name in ("progress", "progress", "log", "progress", "progress", "progress"):
            log.add(name, {})
        return [(event.id, event.name) for event in log.after(0)]

    assert asyncio.run(story()) == [(2, "progress"), (3, "log"), (6, "progress")]


def test_silence_is_told(monkeypatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)

    async def story() -> int | None:
        return await anext(aiter(EventLog().follow()))

    assert asyncio.run(story()) is None


def test_an_event_is_written_as_the_standard_has_it() -> None:
    assert EventLog().add("log", {"text": "a\n\nb"}).as_stream() == 'id: 1\nevent: log\ndata: {"text": "a\\n\\nb"}\n\n'
