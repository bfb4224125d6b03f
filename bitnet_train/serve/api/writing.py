"""A request from its texts to its answer: sent to the worker, gathered or streamed, cancelled when its client leaves.

Nothing of a stream is sent before the first text has begun, so that a request that is refused gets its status. What
fails later is an event `error` in the stream. A client that reads slowly holds up nobody: pieces wait for it here, no
more of them than its texts have tokens, and not longer than `most_seconds` and a moment.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bitnet_train.serve.api.answers import Answer, usage
from bitnet_train.serve.api.errors import CLIENT_GONE, ApiError
from bitnet_train.serve.api.hand import Asked, Event, Hand
from bitnet_train.serve.api.metrics import Counters
from bitnet_train.serve.api.models import Models, soon

_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Bounds:
    """`most_texts` are written and wait at a worker; a text may take `most_seconds`.

    A worker that says nothing `grace_seconds` after that hangs, and is given up; so is a client that reads nothing.
    """

    most_texts: int
    most_seconds: float
    grace_seconds: float = 30.0


@dataclass(frozen=True)
class Job:
    """What one request wants: its texts, `choices` of each prompt, the form of its answer."""

    model: str
    texts: Sequence[Mapping[str, Any]]
    choices: int
    answer: Answer
    stream: bool
    include_usage: bool


class Writer:
    """Writes the texts of requests."""

    def __init__(self, models: Models, bounds: Bounds, counters: Counters) -> None:
        self._models, self._bounds, self.counters = models, bounds, counters
        self.most_seconds = bounds.most_seconds + 2 * bounds.grace_seconds

    async def respond(self, request: Request, job: Job) -> Response:
        """Answer a request. Raises ApiError where nothing was sent yet."""
        if job.stream:
            return _Stream(self, job, await _whatever_comes_first(request, self._opened(job)))
        return await _whatever_comes_first(request, self._whole(job))

    async def ask(self, name: str, message: Mapping[str, Any], seconds: float) -> tuple[Any, Event]:
        """Return what is fixed of a model, and its answer to a question that needs no step."""
        async with self._models.use(name, seconds) as hand:
            self._require_room(hand, 1)
            with hand.asking(1) as asked:
                await hand.send({**message, "id": asked.keys[0]})
                event = await soon(asked.events.get(), seconds)
                if event["is"] == "error":
                    raise ApiError(event["status"], event["message"], code=event["code"])
                return hand.facts, event

    async def _whole(self, job: Job) -> Response:
        tally = Tally(job, self.counters)
        async for event in self.events(job):
            tally.take(event)
        return JSONResponse(job.answer.of(tally.choices(), tally.usage()))

    async def _opened(self, job: Job) -> tuple[AsyncIterator[Event], Event]:
        """Return the events of a request, and the first of them that has come."""
        events = self.events(job)
        return events, await anext(events)

    async def events(self, job: Job) -> AsyncIterator[Event]:
        """Yield what the worker tells, until all texts are done. Raises ApiError for the first that fails."""
        seconds = self._bounds.most_seconds + self._bounds.grace_seconds
        async with self._models.use(job.model, seconds) as hand:
            self._require_room(hand, len(job.texts))
            with hand.asking(len(job.texts)) as asked:
                await self._send(hand, asked, job)
                async for event in _told(hand, asked, seconds):
                    yield event

    async def _send(self, hand: Hand, asked: Asked, job: Job) -> None:
        seconds = self._bounds.most_seconds
        for key, text in zip(asked.keys, job.texts, strict=True):
            await hand.send({**text, "id": key, "request": asked.keys[0], "seconds": seconds})

    def _require_room(self, hand: Hand, count: int) -> None:
        most = self._bounds.most_texts
        if count > most:
            raise ApiError(400, f"A request may ask for {most} texts here.", code="invalid_value", param="n")
        if hand.num_texts + count > most:
            self.counters.refused += 1
            raise ApiError(429, "The server is busy: ask again in a moment.", code="queue_full", retry_after=1)


async def _told(hand: Hand, asked: Asked, seconds: float) -> AsyncIterator[Event]:
    """Yield events until every text is done; ApiError 503 when that takes more than so many seconds."""
    left, until = len(asked.keys), time.monotonic() + seconds
    while left:
        event = await _next(hand, asked, until)
        if event["is"] == "error":
            raise ApiError(event["status"], event["message"], code=event["code"])
        left -= event["is"] == "done"
        yield {**event, "place": asked.place(event)}


async def _next(hand: Hand, asked: Asked, until: float) -> Event:
    if not asked.events.empty():
        return asked.events.get_nowait()
    try:
        return await soon(asked.events.get(), until - time.monotonic())
    except ApiError:  # it would have ended a text that takes too long, so it hangs
        hand.give_up()
        raise


class Tally:
    """What came of each text: its words, its tokens, its counts."""

    def __init__(self, job: Job, counters: Counters) -> None:
        self._job, self._counters = job, counters
        self._texts = [""] * len(job.texts)
        self._tokens: list[list[Mapping[str, Any]]] = [[] for _ in job.texts]
        self._ends: list[Event] = [{}] * len(job.texts)
        self._cached = [0] * len(job.texts)

    def take(self, event: Event) -> None:
        """Take one event."""
        place = event["place"]
        if event["is"] == "begun":
            self._cached[place] = event["cached_tokens"]
        elif event["is"] == "piece":
            self._texts[place] += event["text"]
            self._tokens[place] += event.get("tokens", [])
        else:
            self._ends[place] = event
            self._counters.count(self._job.model, event)

    def length(self, place: int) -> int:
        """Return the characters that a text has so far."""
        return len(self._texts[place])

    def choices(self) -> list[dict[str, Any]]:
        """Return all choices whole."""
        rows = zip(self._texts, self._tokens, self._ends, strict=True)
        return [self._job.answer.choice(at, text, tokens, end["finish"]) for at, (text, tokens, end) in enumerate(rows)]

    def usage(self) -> dict[str, Any]:
        """Return the counts."""
        firsts = range(0, len(self._ends), self._job.choices)
        prompts = sum(self._ends[at].get("prompt_tokens", 0) for at in firsts)
        new = sum(end.get("new_tokens", 0) for end in self._ends)
        return usage(prompts, new, sum(self._cached[at] for at in firsts))


class _Stream(Response):
    """Server-sent events: one for each piece, those that came together sent together."""

    def __init__(self, writer: Writer, job: Job, opened: tuple[AsyncIterator[Event], Event]) -> None:
        self._job, self._events, self._first = job, opened[0], opened[1]
        self._tally, self._seconds = Tally(job, writer.counters), writer.most_seconds
        self.status_code, self.background = 200, None
        headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED, timeout=self._seconds)
            if writing.done():
                writing.result()
        except OSError:  # the client went away
            pass
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _write(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await _send(send, b"".join(self._openings()) + b"".join(self._lines(self._first)))
            async for event in self._events:
                lines = b"".join(self._lines(event))
                if lines:
                    await _send(send, lines)
            await _send(send, self._usage() + _DONE)
        except ApiError as error:
            await _send(send, b"event: error\n" + _line(error.body()))
        finally:
            await self._events.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _openings(self) -> list[bytes]:
        openings = [self._job.answer.opening(at) for at in range(len(self._job.texts))]
        return [_line(self._piece([opening])) for opening in openings if opening is not None]

    def _lines(self, event: Event) -> list[bytes]:
        """Return the event as lines: none for the beginning of a text."""
        place, answer = event["place"], self._job.answer
        offset = self._tally.length(place)
        self._tally.take(event)
        if event["is"] == "piece":
            return [_line(self._piece([answer.part(place, event["text"], event.get("tokens", ()), offset)]))]
        if event["is"] == "done":
            return [_line(self._piece([answer.part(place, "", (), offset, event["finish"])]))]
        return []

    def _piece(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._job.answer.piece_of(choices, **({"usage": None} if self._job.include_usage else {}))

    def _usage(self) -> bytes:
        if not self._job.include_usage:
            return b""
        return _line(self._job.answer.piece_of([], usage=self._tally.usage()))


def _line(content: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _send(send: Callable[[Any], Any], body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _left(receive: Callable[[], Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whatever_comes_first(request: Request, work: Any) -> Any:
    """Return what `work` gives, unless the client leaves first: then it is cancelled, and nobody reads the answer."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(CLIENT_GONE, "The client went away.", code="client_gone")
        return working.result()
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, ApiError):
                    await task
