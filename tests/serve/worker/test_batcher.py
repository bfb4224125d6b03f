"""Texts that are written side by side are those that each would be alone, whatever happens beside them."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.serve.worker.asked import read_asked
from bitnet_train.serve.worker.batcher import Batcher, Limits
from bitnet_train.serve.worker.engine import NativeEngine
from bitnet_train.serve.worker.text import Text

PROMPTS = ["def main(", "import os\nimport sys\n" * 30, "class A:\n    def", "x = 1", "for i in range(", "# a"]
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "top_k": 40, "min_p": 0.01}
Make = Callable[..., Text]


@pytest.fixture(scope="module")
def model(pretrained_folder: Path) -> NativeModel:
    return NativeModel.load(pretrained_folder, num_threads=1)


@pytest.fixture
def engine(model: NativeModel) -> NativeEngine:
    return NativeEngine(model)


@pytest.fixture
def make(engine: NativeEngine) -> Make:
    def text(key: str, prompt: Any, max_new_tokens: int | None = 24, seed: int | None = None, **more: Any) -> Text:
        sampling = {} if seed is None else {**SAMPLED, "seed": seed}
        message = {
            "id": key,
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "sampling": sampling,
            "ignore_end": True,
        }
        return Text(key, read_asked({**message, **more}, engine.tokens, engine.facts, {}), engine)

    return text


def run(batcher: Batcher, *texts: Text) -> dict[str, list[dict[str, Any]]]:
    """Write all texts, and return the events of each."""
    for text in texts:
        batcher.add(text)
    told: dict[str, list[dict[str, Any]]] = {text.key: [] for text in texts}
    while batcher.is_busy:
        for event in batcher.step():
            told.setdefault(event["id"], []).append(event)
    return told


def written(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["is"] == "piece")


def all_texts(make: Make, **more: Any) -> list[Text]:
    return [make(str(at), prompt, seed=at if at % 2 else None, **more) for at, prompt in enumerate(PROMPTS)]


def test_texts_side_by_side_are_those_of_each_alone_and_of_generate(
    engine: NativeEngine, make: Make, model: NativeModel
) -> None:
    together = run(Batcher(engine, Limits()), *all_texts(make, ignore_end=False))
    for at, prompt in enumerate(PROMPTS):
        chosen = {**SAMPLED, "seed": at} if at % 2 else {}
        expected = model.generate(prompt, max_new_tokens=24, **chosen)
        assert written(together[str(at)]) == expected.text
        assert together[str(at)][-1]["new_tokens"] == len(expected.token_ids)


def test_a_text_that_joins_and_one_that_leaves_change_nothing(engine: NativeEngine, make: Make) -> None:
    alone = {text.key: run(Batcher(engine, Limits()), text)[text.key] for text in all_texts(make)}
    batcher, told = Batcher(engine, Limits(step_tokens=16)), {}
    for at, text in enumerate(all_texts(make)):
        batcher.add(text)
        batcher.add(make(f"gone {at}", PROMPTS[-at], None, seed=at))
        for _ in range(5):
            for event in batcher.step():
                told.setdefault(event["id"], []).append(event)
        batcher.cancel(f"gone {at}")
    while batcher.is_busy:
        for event in batcher.step():
            told.setdefault(event["id"], []).append(event)
    assert {key: written(told[key]) for key in alone} == {key: written(events) for key, events in alone.items()}


def test_texts_whose_memory_was_taken_go_on_as_if_nothing_had_happened(engine: NativeEngine, make: Make) -> None:
    alone = {text.key: written(run(Batcher(engine, Limits()), text)[text.key]) for text in all_texts(make)}
    page = engine.new_sequence()
    engine.forward([page], [[1]], all_logits=False)
    batcher = Batcher(engine, Limits(cache_bytes=3 * page.bytes, step_tokens=16))
    put_back = []
    batcher._put_back = lambda text, put=batcher._put_back: (put_back.append(text.key), put(text))  # type: ignore[method-assign]
    told = run(batcher, *all_texts(make))
    assert {key: written(events) for key, events in told.items()} == alone
    assert put_back


def test_a_long_prompt_does_not_stop_the_others(engine: NativeEngine, make: Make) -> None:
    batcher = Batcher(engine, Limits(step_tokens=16))
    batcher.add(make("short", "x = 1", 30))
    batcher.step()
    batcher.add(make("long", PROMPTS[1] * 2, 1))
    order = [event["id"] for _ in range(11) for event in batcher.step() if event["is"] == "piece"]
    assert order.count("short") >= 10  # a token a step, while the prompt is read 16 tokens at a time
    assert "long" not in order


def test_the_beginning_that_texts_share_is_read_once(engine: NativeEngine, make: Make) -> None:
    batcher = Batcher(engine, Limits(step_tokens=32))
    first = run(batcher, make("a", PROMPTS[1], 4))["a"]
    again = run(batcher, make("b", PROMPTS[1] + "import re\n", 4))["b"]
    assert first[0]["cached_tokens"] == 0
    assert again[0]["cached_tokens"] >= again[0]["prompt_tokens"] - 8
    fresh = run(Batcher(engine, Limits()), make("b", PROMPTS[1] + "import re\n", 4))["b"]
    assert written(again) == written(fresh)


def test_choices_of_one_long_prompt_share_its_reading_while_it_is_written(engine: NativeEngine, make: Make) -> None:
    told = run(Batcher(engine, Limits(step_tokens=32)), *(make(str(n), PROMPTS[1], 12, seed=n) for n in range(3)))
    assert [told[str(n)][0]["cached_tokens"] > 60 for n in range(3)] == [False, True, True]
    assert written(told["2"]) == written(run(Batcher(engine, Limits()), make("2", PROMPTS[1], 12, seed=2))["2"])


def test_a_text_that_fails_is_ended_alone(engine: NativeEngine, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bad = make("bad", "x = 1")
    bad.ids[-1] = engine.facts.vocab + 5  # what no request can ask for: the model refuses the whole step
    told = run(Batcher(engine, Limits()), make("good", "def f("), bad)
    assert told["bad"][-1]["is"] == "error"
    assert told["bad"][-1]["status"] == 500
    assert written(told["good"]) == written(run(Batcher(engine, Limits()), make("good", "def f("))["good"])
    assert "out of" in caplog.text or "vocab" in caplog.text


def test_a_text_whose_time_is_over_ends_where_it_is(engine: NativeEngine, make: Make) -> None:
    batcher, text = Batcher(engine, Limits(most_texts=1)), make("a", "x = 1", None, seconds=0.2)
    batcher.add(text)
    batcher.add(make("waits", "y = 2", None, seconds=0.0))
    events = batcher.step()
    assert [event["code"] for event in events if event["id"] == "waits"] == ["timeout"]
    time.sleep(0.25)
    events += batcher.step()
    assert events[-1] == {"id": "a", "is": "done", "finish": "length", "prompt_tokens": 3, "new_tokens": text.num_new}
    assert not batcher.is_busy


def test_no_more_texts_than_allowed_are_written_at_once(engine: NativeEngine, make: Make) -> None:
    batcher = Batcher(engine, Limits(most_texts=2))
    for text in all_texts(make):
        batcher.add(text)
    batcher.step()
    assert batcher.state()["running"] == 2
    assert batcher.state()["waiting"] == len(PROMPTS) - 2


def test_a_request_of_many_texts_does_not_make_others_wait_for_all_of_them(engine: NativeEngine, make: Make) -> None:
    batcher = Batcher(engine, Limits(most_texts=2))
    for at in range(10):
        batcher.add(make(f"many {at}", "x = 1", 6, request="many"))
    batcher.step()
    batcher.add(make("one", "y", 2))
    done = []
    while batcher.is_busy:
        done += [event["id"] for event in batcher.step() if event["is"] == "done"]
    assert done.index("one") <= 2


def test_what_is_remembered_stays_within_its_bytes(engine: NativeEngine, make: Make) -> None:
    limits = Limits(cache_bytes=6 << 20)
    batcher = Batcher(engine, limits)
    for at in range(20):
        run(batcher, make(str(at), f"{at} = {at}\n" * 20, 2))
        assert batcher.state()["cache_bytes"] <= limits.cache_bytes


def test_keys_and_values_are_free_when_a_text_has_left(engine: NativeEngine, make: Make) -> None:
    """At once, and not when Python next looks for cycles: until then they would add up to any amount."""
    batcher = Batcher(engine, Limits())
    texts = [make("ended", "x = 1", 3), make("cancelled", "y = 2")]
    left = [weakref.ref(text) for text in texts]
    gc.disable()
    try:
        while texts:
            batcher.add(texts.pop())
        batcher.step()
        batcher.cancel("cancelled")
        run(batcher)
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()


def test_a_prompt_is_told_with_the_logarithms_of_its_tokens(
    engine: NativeEngine, make: Make, model: NativeModel
) -> None:
    told = run(
        Batcher(engine, Limits(step_tokens=16)), make("a", PROMPTS[1], 1, echo=True, logprobs=1), make("b", "x", 20)
    )
    tokens = [token for event in told["a"] if event["is"] == "piece" for token in event.get("tokens", ())]
    ids = model.tokens.encode(PROMPTS[1])
    assert [token["id"] for token in tokens][:-1] == ids
    logits = model.logits(ids).astype(np.float64)
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    assert tokens[0]["logprob"] is None
    # float32 logs of logits below 32 in size: an error of a few units of 2^-19
    np.testing.assert_allclose(
        [token["logprob"] for token in tokens[1:-1]], [logs[at, one] for at, one in enumerate(ids[1:])], atol=2e-5
    )
    assert [token["top"][0][0] for token in tokens[1:]] == logits.argmax(-1).tolist()


def test_no_new_tokens_with_echo_tells_the_prompt_alone(engine: NativeEngine, make: Make) -> None:
    told = run(
        Batcher(engine, Limits()), make("a", "x = 1", 0, echo=True), make("b", "x = 1", 0, echo=True, logprobs=0)
    )
    assert written(told["a"]) == written(told["b"]) == "x = 1"
    assert told["a"][-1]["new_tokens"] == 0
    assert sum(len(event.get("tokens", ())) for event in told["b"]) == 3
