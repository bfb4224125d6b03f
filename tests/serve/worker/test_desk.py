"""Requests are read beside the steps; what is wrong with one is told to it alone."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.serve.worker.desk import Desk
from bitnet_train.serve.worker.engine import NativeEngine
from bitnet_train.serve.worker.text import Text


@pytest.fixture(scope="module")
def engine(pretrained_folder: Path) -> NativeEngine:
    return NativeEngine(NativeModel.load(pretrained_folder, num_threads=1))


class Heard:
    """Messages that come one after another, and what was said."""

    def __init__(self, engine: NativeEngine) -> None:
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.desk = Desk(engine, {}, self.said.put)
        self.desk.open(self._hear())

    def tell(self, *messages: dict[str, Any] | None) -> None:
        for message in messages:
            self._messages.put(message)

    def event(self) -> dict[str, Any]:
        return self.said.get(timeout=20)["events"][0]

    def _hear(self) -> Iterator[dict[str, Any]]:
        while (message := self._messages.get()) is not None:
            yield message


def write(key: str, prompt: Any, **more: Any) -> dict[str, Any]:
    return {"do": "write", "id": key, "prompt": prompt, "max_new_tokens": 4, **more}


def test_requests_become_texts_in_order_and_the_wrong_ones_errors(engine: NativeEngine) -> None:
    heard = Heard(engine)
    heard.tell(write("a", "x"), write("b", ""), write("c", "word " * 900), write("d", {"no": 1}), write("e", [5, 6]))
    assert [text.key for text in (heard.desk.inbox.get(timeout=20), heard.desk.inbox.get(timeout=20))] == ["a", "e"]
    told = [heard.event() for _ in range(3)]
    assert [(event["id"], event["status"], event["code"]) for event in told] == [
        ("b", 400, "invalid_request_error"),
        ("c", 400, "context_length_exceeded"),
        ("d", 400, "invalid_request_error"),
    ]
    heard.tell(None)
    assert heard.desk.inbox.get(timeout=20) is None


def test_a_message_that_nobody_thought_of_is_an_error_of_its_own_without_its_cause(engine: NativeEngine) -> None:
    heard = Heard(engine)
    heard.tell({"do": "write", "id": "a"}, write("b", "x", sampling={"no_such": 1}), write("c", "x"))
    told = [heard.event() for _ in range(2)]
    assert [(event["id"], event["status"]) for event in told] == [("a", 500), ("b", 500)]
    assert all("log says why" in event["message"] for event in told)
    assert isinstance(heard.desk.inbox.get(timeout=20), Text)


def test_what_is_cancelled_before_it_is_read_becomes_no_text(engine: NativeEngine) -> None:
    heard = Heard(engine)
    heard.tell(*({"do": "tokenize", "id": f"slow {at}", "prompt": "a b " * 15_000} for at in range(3)))
    heard.tell(write("a", "x"), {"do": "cancel", "id": "a"}, write("b", "x"))
    entries = [heard.desk.inbox.get(timeout=30) for _ in range(2)]
    assert [entry if isinstance(entry, str) else entry.key for entry in entries] == ["a", "b"]
    assert isinstance(entries[0], str)


def test_tokens_are_counted_and_put_together(engine: NativeEngine) -> None:
    heard = Heard(engine)
    heard.tell(
        {"do": "tokenize", "id": "1", "prompt": "def main("}, {"do": "detokenize", "id": "2", "token_ids": [99999]}
    )
    cut = heard.event()
    assert "".join(cut["texts"]) == "def main("
    assert heard.event()["status"] == 400
    heard.tell({"do": "detokenize", "id": "3", "token_ids": cut["token_ids"]})
    assert heard.event()["text"] == "def main("
