"""The guard around a plain ASGI app that reads its body and answers with its length."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from bitnet_train.serve.guard import guarded

RULES: dict[str, Any] = {
    "hosts": ["127.0.0.1", "localhost", "::1"],
    "origins": ["http://pages.example:3000"],
    "key": "the key",
    "token": "the token",
    "most_body_bytes": 10,
    "larger": {"/uploads": 100},
    "open_paths": ("/health", "/page"),
}


async def reads_all(scope: Any, receive: Any, send: Any) -> None:
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            await send({"type": "http.response.start", "status": 500, "headers": []})
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-of-the-app", b"1")]})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    path: str = "/health",
    headers: dict[str, str] | Iterable[tuple[str, str]] = (),
    *,
    method: str = "POST",
    body: Iterable[bytes] = (b"",),
    **rules: Any,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of one request."""
    given = list(headers.items() if isinstance(headers, dict) else headers)
    if not any(name == "host" for name, _ in given):
        given.append(("host", "127.0.0.1:8000"))
    parts = list(body)
    incoming = iter(
        [{"type": "http.request", "body": part, "more_body": at + 1 < len(parts)} for at, part in enumerate(parts)]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given]
    scope = {"type": "http", "scheme": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guarded(reads_all, **{**RULES, **rules})(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(part["body"] for part in sent[1:])


def status_of(*arguments: Any, **keywords: Any) -> int:
    return ask(*arguments, **keywords)[0]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.", 421),
        ("", 421),
        ("[::1", 200),
        ("user@127.0.0.1", 421),
    ],
)
def test_only_our_names_are_answered(host: str, status: int) -> None:
    assert status_of(headers={"host": host}) == status


def test_two_hosts_are_none() -> None:
    assert status_of(headers=[("host", "127.0.0.1"), ("host", "evil.example")]) == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://pages.example:3000"}, 200),
        ({"origin": "http://pages.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://pages.example:3000"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil.example"}, 403),
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[str, str], status: int) -> None:
    assert status_of(headers=headers) == status


def test_only_a_named_origin_may_read_answers() -> None:
    named = ask(headers={"origin": "http://pages.example:3000"})[1]
    assert named[b"access-control-allow-origin"] == b"http://pages.example:3000"
    assert named[b"vary"] == b"origin"
    for headers in ({}, {"origin": "http://127.0.0.1:8000"}, {"origin": "http://evil.example"}):
        assert b"access-control-allow-origin" not in ask(headers=headers)[1]


def test_a_preflight_of_a_named_origin_needs_no_key_and_runs_nothing() -> None:
    headers = {"access-control-request-method": "POST", "origin": "http://pages.example:3000"}
    status, answer, body = ask("/v1/models", headers, method="OPTIONS")
    assert (status, body) == (204, b"")
    assert b"authorization" in answer[b"access-control-allow-headers"]
    assert b"x-of-the-app" not in answer
    assert status_of("/v1/models", {**headers, "origin": "http://evil.example"}, method="OPTIONS") == 403


@pytest.mark.parametrize(
    ("path", "shown", "status"),
    [
        ("/v1/models", "Bearer the key", 200),
        ("/v1/models", "bearer  the key ", 200),
        ("/v1/models", "", 401),
        ("/v1/models", "Bearer the token", 401),
        ("/v1/models", "Basic the key", 401),
        ("/v1/models", "Bearer the key2", 401),
        ("/v1/models", "Bearer \xe9", 401),
        ("/health", "", 200),
        ("/healthy", "", 401),
        ("/page/app.js", "", 200),
        ("/playground/api/state", "Bearer the token", 200),
        ("/playground/api/state", "Bearer the key", 401),
        ("/playground/apis", "Bearer the key", 200),
    ],
)
def test_each_path_needs_its_own_secret(path: str, shown: str, status: int) -> None:
    assert status_of(path, {"authorization": shown} if shown else {}) == status


def test_a_refusal_has_the_form_of_openai_and_no_secret() -> None:
    status, headers, body = ask("/v1/models", {"authorization": "Bearer guess"})
    assert (status, headers[b"content-type"]) == (401, b"application/json")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "invalid_api_key"
    assert b"guess" not in body
    assert b"the key" not in body


@pytest.mark.parametrize(
    ("path", "parts", "status"),
    [
        ("/health", [b"x" * 10], 200),
        ("/health", [b"x" * 11], 413),
        ("/health", [b"x" * 6, b"x" * 5], 413),
        ("/uploads", [b"x" * 100], 200),
        ("/uploads/one", [b"x" * 50, b"x" * 51], 413),
        ("/uploadsx", [b"x" * 11], 413),
    ],
)
def test_a_body_is_counted_as_it_comes(path: str, parts: list[bytes], status: int) -> None:
    assert status_of(path, {"authorization": "Bearer the key"}, body=parts) == status


@pytest.mark.parametrize(
    ("length", "status"), [("10", 200), ("11", 413), ("9" * 60, 413), ("-1", 400), ("1e1", 400), ("\xb2", 400)]
)
def test_a_length_is_judged_before_anything_is_read(length: str, status: int) -> None:
    assert status_of(headers={"content-length": length}) == status


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
def test_every_answer_tells_the_browser_to_load_nothing_from_elsewhere(path: str) -> None:
    headers = ask(path)[1]
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_secrets_are_not_in_what_is_printed() -> None:
    from bitnet_train.serve.guard import Rules

    assert "the key" not in repr(Rules(["localhost"], key="the key", token="the token"))


def test_web_sockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guarded(reads_all, **RULES)({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
