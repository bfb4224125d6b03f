"""Workers by the name of their model: started when they are first asked, ended when another model needs the room.

At most `most_models` are held. To make room the least recently used one ends, when nobody waits for it; where somebody
waits for each of them, a request for another model waits too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.api.hand import Hand, LoadError, Start, last_words

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Models:
    """The models that the server has, and the workers of those that are loaded."""

    def __init__(self, starts: Mapping[str, Start], most_loaded: int) -> None:
        self._starts, self._most_loaded = starts, most_loaded
        self.created = int(time.time())
        self.loaded: dict[str, Hand] = {}  # the least recently used first
        self.num_started: dict[str, int] = dict.fromkeys(starts, 0)
        self._users: dict[str, int] = dict.fromkeys(starts, 0)
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        self._one_by_one, self._freed = asyncio.Lock(), asyncio.Event()

    @property
    def names(self) -> list[str]:
        """The names, in the order of the command line."""
        return list(self._starts)

    def name_of(self, asked: str | None) -> str:
        """Return the name of the model that is asked for; where there is one, it need not be named. ApiError 404."""
        if asked is None and len(self._starts) == 1:
            return self.names[0]
        if asked in self._starts:
            return str(asked)
        raise ApiError(
            404 if asked is not None else 400,
            f"`model`: this server has {', '.join(self.names)}.",
            code="model_not_found",
            param="model",
        )

    @asynccontextmanager
    async def use(self, name: str, seconds: float) -> AsyncIterator[Hand]:
        """Yield the worker of a model, which stays loaded in the block.

        Raises ApiError 503 where it cannot be loaded, or not within so many seconds.
        """
        self._users[name] += 1  # before it is there: a model that was just loaded for somebody makes no room
        try:
            yield await soon(self._loaded(name), seconds)
        finally:
            self._users[name] -= 1
            self._freed.set()

    async def close(self) -> None:
        """End all workers."""
        self._is_closed = True
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        hands = list(self.loaded.values())
        self.loaded.clear()
        await asyncio.gather(*(hand.stop() for hand in hands))

    async def _loaded(self, name: str) -> Hand:
        """Return the worker of a model, the most recently used one from now on."""
        while True:
            if self._is_closed:
                raise ApiError(503, "The server is shutting down.", code="shutting_down")
            hand = self.loaded.pop(name, None)
            if hand is not None and not hand.gone:
                self.loaded[name] = hand
                return hand
            if hand is not None:
                _log.error("The process of %s ended: %s.%s", name, hand.gone, last_words(self._starts[name].log))
            if name not in self._loading:
                self._loading[name] = asyncio.create_task(self._load(name))
            loading = self._loading[name]
            await asyncio.wait({loading})  # which goes on without the client that asked first
            if not loading.cancelled():
                loading.result()

    async def _load(self, name: str) -> None:
        try:
            async with self._one_by_one:
                await self._make_room()
                self.loaded[name] = await self._start(name)
        finally:
            del self._loading[name]

    async def _make_room(self) -> None:
        while len(self.loaded) >= self._most_loaded:
            idle = next((name for name, hand in self.loaded.items() if hand.gone or not self._users[name]), None)
            if idle is not None:
                await self.loaded.pop(idle).stop()
            else:
                self._freed.clear()
                await self._freed.wait()

    async def _start(self, name: str) -> Hand:
        self.num_started[name] += 1
        try:
            return await Hand.start(self._starts[name])
        except LoadError as error:
            _log.error("%s cannot be loaded: %s", name, error)
            raise ApiError(
                503, f"The model `{name}` cannot be loaded; the server's log says why.", code="model_unavailable"
            ) from None


async def soon(work: Awaitable[T], seconds: float) -> T:
    """Return what `work` gives within so many seconds; ApiError 503 where it takes longer."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise ApiError(503, "The model did not answer in time.", code="timeout", retry_after=10) from None
