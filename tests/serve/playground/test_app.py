"""The page, its API and the guard around both, asked over a real socket: who may ask, and what is answered."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from tests.serve.playground.conftest import TOKEN, Playground


def bare(playground: Playground, path: str = "/playground/api/state", **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{playground.port}{path}", headers=headers)


def test_the_state_has_what_the_page_shows(playground: Playground, tiny: dict[str, Any]) -> None:
    state = playground.state()
    assert {"version", "machine", "schemes", "models", "jobs", "runs", "recipes", "limits", "llama_cpp"} <= state.keys()
    assert [scheme["id"] for scheme in state["schemes"]] == [
        *("float", "binary", "ternary", "binary2", "binary3", "binary4")
    ]
    assert state["machine"]["threads"] >= 1
    assert "quickstart" in [recipe["name"] for recipe in state["recipes"]]
    assert len(tiny["layers"]) == 30


def test_layers_have_roles_shapes_and_bytes(tiny: dict[str, Any]) -> None:
    layers = {layer["name"]: layer for layer in tiny["layers"]}
    down = layers["model.layers.2.mlp.down_proj"]
    assert (down["role"], down["block"], down["shape"], down["swappable"]) == ("down", 2, [256, 768], True)
    assert down["bytes"]["float"] == 2 * 256 * 768
    assert down["bytes"]["binary"] == 256 * 768 // 8 + 2 * 256 * 768 // 64
    assert down["bytes"]["binary3"] == 3 * 256 * 768 // 8 + 2 * 256 * 768 // 64
    assert (layers["lm_head"]["role"], layers["model.embed_tokens"]["role"]) == ("head", "embedding")


@pytest.mark.parametrize("shown", [None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_without_the_token_nothing_is_answered(playground: Playground, shown: str | None) -> None:
    answer = bare(playground, **({} if shown is None else {"Authorization": shown}))
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert TOKEN not in answer.text


def test_the_token_in_the_address_opens_the_page_and_not_the_api(playground: Playground) -> None:
    assert bare(playground, f"/playground/api/state?token={TOKEN}").status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80"])
def test_a_foreign_host_is_refused(playground: Playground, host: str) -> None:
    assert bare(playground, Authorization=f"Bearer {TOKEN}", Host=host).status_code == 421


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_elsewhere_is_refused(playground: Playground, headers: dict[str, str]) -> None:
    answer = bare(playground, Authorization=f"Bearer {TOKEN}", **headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_answers_tell_the_browser_to_load_nothing_from_elsewhere(playground: Playground) -> None:
    answer = bare(playground, Authorization=f"Bearer {TOKEN}")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/playground/../../../etc/passwd", "/playground/..%2f..%2f..%2fetc%2fpasswd", "/playground/%2e%2e/tiny"]
)
def test_the_page_leads_to_no_other_file(playground: Playground, path: str) -> None:
    with socket.create_connection(("127.0.0.1", playground.port), timeout=20) as asked:
        asked.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = asked.makefile("rb").read()
    assert b" 404 " in answer.splitlines()[0]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("DELETE", "/state", 405),
        ("GET", "/jobs/unknown", 404),
        ("GET", "/jobs/unknown/events", 404),
        ("POST", "/jobs/unknown/cancel", 404),
        ("GET", "/models/unknown", 404),
        ("DELETE", "/models/unknown", 404),
        ("POST", "/models/unknown/reload", 404),
        ("GET", "/runs/unknown", 404),
        ("GET", "/runs/..%2f..%2fetc", 404),
        ("POST", "/uploads/unknown/done", 404),
        ("PUT", "/uploads/unknown/config.json", 404),
    ],
)
def test_what_is_not_there_is_an_error_in_openais_form(
    playground: Playground, method: str, path: str, status: int
) -> None:
    answer = playground.client.request(method, path)
    assert answer.status_code == status
    assert {"message", "type", "param", "code"} == answer.json()["error"].keys()


def test_health_needs_no_token(playground: Playground) -> None:
    assert bare(playground, "/health").status_code == 200
