"""The page's pure modules, imported in the browser that runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Server, Watched

api = pytest.importorskip("playwright.sync_api", reason="no browser test: `pip install playwright`")

Call = Callable[..., Any]
CALL = """async ([module, name, values]) => {
  const plain = (value) => (value instanceof Set ? [...value] : value);
  const found = (await import(new URL(module, document.baseURI)))[name](...values);
  return found && typeof found === "object" && !Array.isArray(found)
    ? Object.fromEntries(Object.entries(found).map(([key, value]) => [key, plain(value)]))
    : plain(found);
}"""


@pytest.fixture
def call(visit: Callable[..., Watched], server: Server) -> Call:
    """Call a function of a module with JSON values."""
    page = visit().open()

    def ask(module: str, name: str, *values: Any) -> Any:
        return page.evaluate(CALL, [module, name, list(values)])

    return ask


@pytest.mark.parametrize(
    ("left", "right", "parts"), [([], [], None), ([1, 2], [1, 2, 3], None), ([1, 2], [1, 3], 1), ([5], [6], 0)]
)
def test_two_lists_part_at_the_first_difference(call: Call, left: list[int], right: list[int], parts: object) -> None:
    assert call("parts/parting.js", "partsAt", left, right) == parts


def test_only_agreements_of_three_tokens_end_a_difference(call: Call) -> None:
    short = call("parts/parting.js", "differences", [1, 2, 9, 4], [1, 3, 9, 5])
    assert short == {"parts": 1, "left": [1, 2, 3], "right": [1, 2, 3]}
    long = call("parts/parting.js", "differences", [1, 2, 7, 8, 9], [1, 3, 4, 7, 8, 9])
    assert long == {"parts": 1, "left": [1], "right": [1, 2]}


@pytest.mark.parametrize(
    ("block", "event"),
    [
        ("id: 7\nevent: piece\ndata: {}", {"id": "7", "event": "piece", "data": "{}"}),
        ("data: a\r\ndata: b", {"id": None, "event": "message", "data": "a\nb"}),
        (": nothing new", None),
        ("data:no blank", {"id": None, "event": "message", "data": "no blank"}),
    ],
)
def test_events_are_parsed_as_the_standard_has_them(call: Call, block: str, event: object) -> None:
    assert call("lib/events.js", "parse", block) == event


def test_half_an_event_waits_for_the_rest(call: Call) -> None:
    assert call("lib/events.js", "split", "data: 1\n\ndata: 2") == {"blocks": ["data: 1"], "rest": "data: 2"}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("number", 1234.5, "1,235"),
        ("number", 12.345, "12.3"),
        ("number", 0.01234, "0.012"),
        ("number", 0.0000123, "1.2e-5"),
        ("number", 3.9e12, "3.9e12"),
        ("number", None, "–"),
        ("bytes", 8921600, "8.92 MB"),
        ("bytes", 999, "999 B"),
        ("percent", 0.615, "62 %"),
        ("seconds", 3725, "1 h 02 min"),
        ("seconds", 59.4, "59 s"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(call: Call, name: str, value: object, text: str) -> None:
    assert call("lib/format.js", name, value) == text


def test_sizes_count_a_matrix_that_embedding_and_head_share_once(call: Call) -> None:
    layers = [
        {"name": name, "role": name, "block": None, "shape": [4, 8], "bytes": {"float": 64, "binary": 5}}
        for name in ("embedding", "head")
    ]
    assert call("lib/choice.js", "sizes", layers, 64)["after"] == 64
    assert call("lib/choice.js", "sizes", layers, None)["isMost"] is True
    assert call("lib/choice.js", "sizes", layers, 128)["after"] == 128


def test_ticks_are_round_and_lie_inside(call: Call) -> None:
    assert call("charts/scale.js", "scale", [0, 24], {"zero": True})["ticks"] == [0, 5, 10, 15, 20]
    logs = call("charts/scale.js", "scale", [10, 5000], {"logs": 20})
    assert logs["log"] is True
    assert logs["ticks"] == [10, 100, 1000]
