"""Heads of requests that never end: too long, or too slow. Others are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from bitnet_train.serve.api.protocol import MOST_HEAD_BYTES, BoundedHttp

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
Client = Callable[[int], Coroutine[Any, Any, None]]


class Hasty(BoundedHttp):
    most_head_seconds = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    while (message := await receive()).get("more_body"):
        size += len(message["body"])
    body = b"%d" % (size + len(message.get("body", b"")))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=Hasty, lifespan="off", loop="asyncio", log_level="error", timeout_keep_alive=20
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


def run(client: Client) -> None:
    async def all_of_it() -> None:
        async with serving() as port:
            await asyncio.wait_for(client(port), 30)

    asyncio.run(all_of_it())


@pytest.mark.parametrize("line", [b"X: " + b"a" * (1 << 16), b"X: b\r\n" * 5000], ids=["one header", "many"])
def test_a_head_without_end_is_refused_before_it_is_kept(line: bytes) -> None:
    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        sent = 0
        while not reader.at_eof() and sent < 8 * MOST_HEAD_BYTES:
            writer.write(line)
            sent += len(line)
            try:
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0)
        assert sent < 8 * MOST_HEAD_BYTES

    run(client)


@pytest.mark.parametrize("begins", [b"", b"GET /", GET])
def test_a_head_that_does_not_come_in_time_ends_its_connection(begins: bytes) -> None:
    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begins)
        assert await reader.read() == b""
        writer.close()

    run(client)


def test_requests_one_after_another_a_pause_between_and_a_large_body_are_answered() -> None:
    async def client(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for size in (0, 3, 4 * MOST_HEAD_BYTES, 5):
            writer.write(GET.replace(b"GET", b"POST") + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert await reader.readexactly(len(b"%d" % size)) == b"%d" % size
            await asyncio.sleep(0.5 if size == 3 else 0)  # longer than a head may take, with nothing of it sent
        writer.close()

    run(client)
