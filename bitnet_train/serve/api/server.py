"""Listening: an address that may be used, the guard before the application, an end at Ctrl-C that leaves nothing."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConfigError
from bitnet_train.serve.guard import guarded
from bitnet_train.serve.settings import ServeConfig

KEY_VARIABLE = "BITNET_TRAIN_KEY"
_OWN_NAMES = ("127.0.0.1", "localhost", "::1")
_LEAST_KEY = 16  # characters, where others than this machine can ask
_MOST_CONNECTIONS = 1024
_SHUTDOWN_SECONDS = 3


@dataclass(frozen=True)
class Door:
    """Where the server listens, under which names, and with which key."""

    listener: socket.socket
    hosts: tuple[str, ...]
    key: str | None = field(repr=False)

    @property
    def address(self) -> str:
        """The address that a program on this machine is given."""
        host, port = self.listener.getsockname()[:2]
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{name}:{port}"


def open_door(settings: ServeConfig) -> Door:
    """Bind the address. Raises ConfigError where it is none of this machine's, is taken, or would need a key."""
    key = read_key(settings)
    if not is_own(settings.host) and (key is None or len(key) < _LEAST_KEY):
        raise ConfigError(
            f"`serve.host={settings.host}` lets other machines ask: that needs a key of {_LEAST_KEY} characters or "
            f"more. Set {KEY_VARIABLE} or `serve.key_file=FILE`, or leave `serve.host` at 127.0.0.1."
        )
    return Door(_bound(settings.host, settings.port), _names(settings), key)


def read_key(settings: ServeConfig) -> str | None:
    """Return the key, which processes that are started from here on do not inherit. ConfigError for no usable one."""
    key = os.environ.pop(KEY_VARIABLE, None) or None
    if settings.key_file is not None:
        try:
            key = Path(settings.key_file).read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"`serve.key_file={settings.key_file}` cannot be read: {error}.") from error
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError("The key must be printable ASCII without spaces: it is sent in a header.")
    return key


def is_own(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    app: Any,
    door: Door,
    settings: ServeConfig,
    ready: Callable[[], object],
    ending: Callable[[], Awaitable[object]] | None = None,
    rules: Mapping[str, Any] | None = None,
) -> None:
    """Answer until the process is told to end.

    `ready` is called when requests are taken; `ending` before those are waited for that have not been answered, which
    it is to hurry. `rules` are those of `guarded` beside what follows from the settings.
    """
    import uvicorn

    from bitnet_train.serve.api.protocol import BoundedHttp

    protected = guarded(
        app,
        hosts=door.hosts,
        origins=settings.origins,
        key=door.key,
        most_body_bytes=int(settings.most_body_mb * 1e6),
        **(rules or {}),
    )
    config = uvicorn.Config(
        protected,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        limit_concurrency=_MOST_CONNECTIONS,
        http=BoundedHttp,
        lifespan="on",
        loop="asyncio",  # and not uvloop where some other package brought it: the same everywhere
        ws="none",
    )
    server = _telling(uvicorn.Server(config), ready, ending)
    with door.listener:
        server.run(sockets=[door.listener])


def _telling(server: Any, ready: Callable[[], object], ending: Callable[[], Awaitable[object]] | None) -> Any:
    """Return a uvicorn server that says when it takes requests, and when it is about to wait for the last ones."""
    start, end = server.startup, server.shutdown

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await start(sockets)
        ready()

    async def shutdown(sockets: list[socket.socket] | None = None) -> None:
        if ending is not None:
            await ending()
        await end(sockets)

    server.startup, server.shutdown = startup, shutdown
    return server


def _names(settings: ServeConfig) -> tuple[str, ...]:
    listening = {settings.host, *settings.hosts}
    if settings.host in ("0.0.0.0", "::"):
        listening |= {socket.gethostname(), *_addresses()}
    return tuple(sorted({*_OWN_NAMES, *listening}))


def _addresses() -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
    except OSError as error:
        raise ConfigError(f"`serve.host={host}` is no address of this machine: {error}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"`serve.host={host} serve.port={port}` cannot be listened on: {error.strerror}. `serve.port=0` takes a "
            "free port."
        ) from error
    return listener
