"""Who may ask, and how much: an ASGI middleware around everything that is served.

A server on 127.0.0.1 is not private: any page that the user's browser shows can send requests there. So a request is
refused

    421  whose `Host` is not one of ours: a name elsewhere that was pointed here (DNS rebinding)
    403  whose `Origin`, or `Sec-Fetch-Site`, says that a page of another origin sent it, unless that origin was named
    401  without the key or token of its path: `Authorization: Bearer ...`, compared in constant time
    413  with a body above the limit of its path: by its `Content-Length` before anything is read, and as it is read

in the form of OpenAI's errors (platform.openai.com/docs/guides/error-codes). Answers tell a browser to load nothing
from elsewhere, and only named origins that they may read them. No key is ever logged or put into an answer.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PLAYGROUND_API = "/playground/api"
_READ_AWAY_BYTES, _READ_AWAY_SECONDS = 64 << 20, 2.0
_SAFE = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def error_body(message: str, kind: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Rules:
    """Who may ask, and how much.

    hosts: names, without a port, under which the server is asked, such as `127.0.0.1`. origins: of pages elsewhere that
    may use it, such as `http://localhost:3000`. key: what every path needs but `open_paths`; None: nothing. token: what
    the paths below /playground/api need, in place of the key. most_body_bytes, larger: the most bytes of a body, and of
    paths below a prefix. open_paths: prefixes of paths that need no key.
    """

    hosts: Sequence[str]
    origins: Sequence[str] = ()
    key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    most_body_bytes: int = 1 << 20
    larger: Mapping[str, int] = field(default_factory=dict)
    open_paths: Sequence[str] = ("/health",)

    def body_limit(self, path: str) -> int:
        """Return the most bytes that a request to this path may have."""
        found = [most for prefix, most in self.larger.items() if _is_below(path, prefix)]
        return max(found, default=self.most_body_bytes)

    def secret(self, path: str) -> str | None:
        """Return what a request to this path must show, or None."""
        if _is_below(path, PLAYGROUND_API) and self.token is not None:
            return self.token
        is_open = any(_is_below(path, prefix) for prefix in self.open_paths)
        return None if is_open else self.key


@dataclass(frozen=True)
class _Refusal(Exception):
    status: int
    message: str
    code: str
    kind: str = "invalid_request_error"


def guarded(app: App, **rules: Any) -> App:
    """Return the app behind these `Rules`."""
    return _Guard(app, Rules(**rules))


class _Guard:
    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # no path of ours is a web socket
            return await send({"type": "websocket.close", "code": 1008})
        request = _Request(scope, self._rules)
        try:
            request.check()
        except _Refusal as refusal:
            return await _refuse(receive, send, refusal, request.headers_to_add())
        if request.is_preflight:
            headers = [*request.headers_to_add(), *_preflight_headers()]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            return await send({"type": "http.response.body", "body": b""})
        body = _CountedBody(request, receive, send)
        return await self._app(scope, body.receive, body.send)


class _Request:
    """What a request says of itself, and whether the rules allow it."""

    def __init__(self, scope: MutableMapping[str, Any], rules: Rules) -> None:
        self._rules, self._scope = rules, scope
        self.path = str(scope["path"])
        self._headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._headers.setdefault(name.lower(), []).append(value)
        self.body_limit = rules.body_limit(self.path)

    @property
    def is_preflight(self) -> bool:
        return self._scope["method"] == "OPTIONS" and b"access-control-request-method" in self._headers

    def check(self) -> None:
        """Raise _Refusal, unless everything is right."""
        self._check_host()
        self._check_origin()
        if not self.is_preflight:
            self._check_secret()
            self._check_length()

    def headers_to_add(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer gets."""
        if not self._is_named_origin():
            return list(_SAFE)
        allowed = [(b"access-control-allow-origin", self._one(b"origin").encode()), (b"vary", b"origin")]
        return [pair for pair in _SAFE if pair[0] != b"cross-origin-resource-policy"] + allowed

    def _one(self, name: bytes) -> str:
        """Return a header that may be given once; given twice it is refused, for two programs may read it as two."""
        values = self._headers.get(name, [])
        if len(values) > 1:
            raise _Refusal(400, f"The header `{name.decode()}` is given {len(values)} times.", "bad_header")
        return values[0].decode("latin-1").strip() if values else ""

    def _check_host(self) -> None:
        name = _host_name(self._one(b"host"))
        if name not in {host.lower() for host in self._rules.hosts}:
            raise _Refusal(
                421,
                "This server does not answer under that host name. Ask it by the address that it printed when it "
                "started; `serve.hosts` names further ones.",
                "wrong_host",
            )

    def _check_origin(self) -> None:
        origin, site = self._one(b"origin"), self._one(b"sec-fetch-site")
        own = f"{self._scope.get('scheme', 'http')}://{self._one(b'host')}".lower()
        is_foreign = origin.lower() != own if origin else site in ("cross-site", "same-site")
        if is_foreign and not self._is_named_origin():
            raise _Refusal(
                403,
                "A page of another origin sent this request. Name its origin in `serve.origins` to allow it.",
                "wrong_origin",
            )

    def _is_named_origin(self) -> bool:
        origins = self._headers.get(b"origin", [])
        return len(origins) == 1 and origins[0].decode("latin-1").strip() in self._rules.origins

    def _check_secret(self) -> None:
        secret = self._rules.secret(self.path)
        if secret is None:
            return
        scheme, _, shown = self._one(b"authorization").partition(" ")
        is_right = hmac.compare_digest(shown.strip().encode("latin-1"), secret.encode())
        if scheme.lower() != "bearer" or not is_right:
            what = "The token of this page" if secret == self._rules.token else "The server's key"
            raise _Refusal(
                401,
                f"{what} is missing or wrong: send the header `Authorization: Bearer ...`.",
                "invalid_api_key",
                "authentication_error",
            )

    def _check_length(self) -> None:
        length = self._one(b"content-length")
        if length and not (length.isascii() and length.isdigit()):
            raise _Refusal(400, "The header `Content-Length` is no number.", "bad_header")
        if length and int(length[:20]) > self.body_limit:
            raise self.too_large()

    def too_large(self) -> _Refusal:
        return _Refusal(413, f"The body is above {self.body_limit:,} bytes, the limit of this path.", "body_too_large")


class _CountedBody:
    """Counts the bytes of a body as they come: past the limit the answer is 413, and the app sees the client leave."""

    def __init__(self, request: _Request, receive: Receive, send: Send) -> None:
        self._request, self._receive, self._send = request, receive, send
        self._bytes, self._is_refused, self._has_begun = 0, False, False

    async def receive(self) -> Message:
        if self._is_refused:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes <= self._request.body_limit:
            return message
        self._is_refused = True
        if not self._has_begun:
            still = self._receive if message.get("more_body", False) else None
            await _refuse(still, self._send, self._request.too_large(), self._request.headers_to_add())
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._has_begun = True
            message = {**message, "headers": [*message.get("headers", ()), *self._request.headers_to_add()]}
        await self._send(message)


async def _refuse(receive: Receive | None, send: Send, refusal: _Refusal, headers: list[tuple[bytes, bytes]]) -> None:
    """Send a refusal; `receive` gives what the client still sends, and is None where it has sent all."""
    body = json.dumps(error_body(refusal.message, refusal.kind, code=refusal.code)).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if receive is not None:
        await _read_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _read_away(receive: Receive) -> None:
    """Read what the client still sends, for a while: a connection closed before that is reset, and the answer lost.

    Source: RFC 9112, section 9.6.
    """
    left = _READ_AWAY_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_READ_AWAY_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):  # the end, or the client is gone
                    return


def _preflight_headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type, last-event-id"),
        (b"access-control-max-age", b"600"),
    ]


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port, in lower case; of an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix.rstrip('/')}/")
