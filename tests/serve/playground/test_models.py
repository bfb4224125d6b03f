"""Each model in a process of its own: jobs of every kind on the bundled one, and what a crash comes to."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.playground.conftest import Playground, until


def workbenches() -> set[int]:
    """The workbench processes that this process has started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == os.getpid() and b"playground.workbench" in command and words[0] != "Z":
            found.add(int(path.parent.name))
    return found


def open_tiny(playground: Playground) -> tuple[dict[str, Any], int]:
    """Open the bundled model a second time; return it and its process."""
    before = workbenches()
    model = playground.client.post("/models", json={"source": "tiny"}).json()
    assert playground.loaded(model["id"])["status"] == "ready"
    (process,) = workbenches() - before
    return model, process


def test_a_swap_says_what_it_costs_and_saves(
    playground: Playground, tiny: dict[str, Any], choice: dict[str, str]
) -> None:
    result = playground.done(kind="swap", model=tiny["id"], choice=choice)["result"]
    nothing = playground.done(kind="swap", model=tiny["id"], choice={"lm_head": "float"})["result"]
    fine = playground.done(kind="swap", model=tiny["id"], choice=dict.fromkeys(choice, "binary4"))["result"]
    assert nothing["after"] == {**nothing["before"], "kl": pytest.approx(0, abs=1e-6), "top1": 1.0}
    assert result["before"] == nothing["before"]
    assert result["after"]["kl"] > 10 * fine["after"]["kl"] > 0
    assert result["after"]["perplexity"] > fine["after"]["perplexity"] > 0.9 * fine["before"]["perplexity"]
    layers = {layer["name"]: layer["bytes"] for layer in tiny["layers"]}
    saved = sum(layers[name]["float"] - layers[name][word] for name, word in choice.items())
    assert result["before"]["bytes"] - result["after"]["bytes"] == saved


def test_a_text_of_ones_own_is_measured(playground: Playground, tiny: dict[str, Any]) -> None:
    asked = {"kind": "swap", "model": tiny["id"], "choice": {"lm_head": "binary"}}
    own = playground.done(**asked, text="import os\nimport sys\n" * 5)["result"]
    assert own["tokens"] < playground.done(**asked)["result"]["tokens"]


@pytest.mark.parametrize("text", ["\ud800 half a pair", "\0\0\0", "a"])
def test_an_odd_text_is_measured_or_refused_in_words(playground: Playground, tiny: dict[str, Any], text: str) -> None:
    asked = {"kind": "swap", "model": tiny["id"], "choice": {"lm_head": "binary"}, "text": text}
    answer = playground.client.post("/jobs", content=json.dumps(asked))
    assert answer.status_code in (201, 400)
    if answer.status_code == 400:
        return
    job = playground.ended(answer.json()["id"])
    assert job["status"] == "done" or job["error"]


@pytest.mark.slow
def test_every_layer_is_told_how_it_bears_one_bit(playground: Playground, tiny: dict[str, Any]) -> None:
    job = playground.done(kind="bearing", model=tiny["id"])
    costs = {layer["name"]: layer["cost"] for layer in playground.model(tiny["id"])["layers"]}
    assert all(cost is not None and cost["kl"] > 0 for cost in costs.values())
    assert sum(cost["share"] for cost in costs.values()) == pytest.approx(1)
    told = [data for _, name, data in playground.events(job["id"]) if name == "cost" and "layer" in data]
    assert {data["layer"]: data["kl"] for data in told} == {name: cost["kl"] for name, cost in costs.items()}
    assert {part["kind"] for part in job["result"]["parts"]} == {"family", "block"}


def test_both_continue_and_part_where_they_differ(
    playground: Playground, tiny: dict[str, Any], choice: dict[str, str]
) -> None:
    asked = {"kind": "continue", "model": tiny["id"], "prompt": "import os\n", "max_new_tokens": 16}
    same = playground.done(**asked, choice={})["result"]
    assert (same["parts_at"], same["original"]) == (None, same["swapped"])
    job = playground.done(**asked, choice=choice)
    result = job["result"]
    assert result["original"] == same["original"]
    ids = [[token["token_id"] for token in result[side]["tokens"]] for side in ("original", "swapped")]
    at = result["parts_at"]
    assert ids[0][:at] == ids[1][:at]
    assert ids[0][at] != ids[1][at]
    pieces = [data for _, name, data in playground.events(job["id"]) if name == "piece"]
    for side in ("original", "swapped"):
        assert "".join(piece["text"] for piece in pieces if piece["side"] == side) == result[side]["text"]
    assert [piece["side"] for piece in pieces[:4]] == ["original", "swapped"] * 2


def test_a_seed_draws_the_same_again_and_the_same_on_both_sides(playground: Playground, tiny: dict[str, Any]) -> None:
    asked = {"kind": "continue", "model": tiny["id"], "choice": {}, "prompt": "def ", "max_new_tokens": 12}
    first = playground.done(**asked, temperature=1.0, seed=1)["result"]
    assert first == playground.done(**asked, temperature=1, seed=1)["result"]
    assert first["original"] == first["swapped"]
    assert first != playground.done(**asked, temperature=1.0, seed=2)["result"]


def test_a_chat_goes_through_the_template(playground: Playground, tiny: dict[str, Any]) -> None:
    asked = {"kind": "continue", "model": tiny["id"], "choice": {}, "prompt": "hi", "max_new_tokens": 2}
    plain = playground.done(**asked)["result"]["prompt_tokens"]
    chat = playground.done(**asked, chat=True)["result"]["prompt_tokens"]
    assert plain < chat < playground.done(**asked, chat=True, system="Be brief.")["result"]["prompt_tokens"]


def test_a_prompt_beyond_the_context_is_refused_in_words(playground: Playground, tiny: dict[str, Any]) -> None:
    asked = {"kind": "continue", "model": tiny["id"], "choice": {}, "prompt": "a b " * 2000}
    job = playground.ended(playground.started(**asked)["id"])
    assert job["status"] == "failed"
    assert "512 in all" in job["error"]


def test_a_benchmark_has_a_row_of_each(playground: Playground, tiny: dict[str, Any], choice: dict[str, str]) -> None:
    job = playground.done(kind="benchmark", model=tiny["id"], choice=choice)
    rows = job["result"]["rows"]
    assert [row["what"] for row in rows] == ["float32, torch", "28 layers swapped, native"]
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(1000 / row["ms_per_token"])
        assert row["memory_bytes"] > 1_000_000
        assert row["threads"] >= 1
    assert rows[0]["memory_bytes"] == 4 * 4_458_752
    assert rows[1]["memory_bytes"] < rows[0]["memory_bytes"]
    assert list((playground.folder / "playground" / "scratch").glob("*/*")) == []


@pytest.mark.parametrize("kind", ["bearing", "continue", "benchmark"])
def test_cancelling_takes_effect_at_once(
    playground: Playground, tiny: dict[str, Any], choice: dict[str, str], kind: str
) -> None:
    further: dict[str, Any] = {} if kind == "bearing" else {"choice": choice}
    further |= {"prompt": "a", "max_new_tokens": 500} if kind == "continue" else {}
    job = playground.started(kind=kind, model=tiny["id"], **further)
    until(lambda: playground.client.get(f"/jobs/{job['id']}").json()["progress"])
    start = time.monotonic()
    playground.client.post(f"/jobs/{job['id']}/cancel")
    assert playground.ended(job["id"])["status"] == "cancelled"
    assert time.monotonic() - start < 5  # a second, on a machine that does nothing else
    playground.done(kind="swap", model=tiny["id"], choice={})


def test_a_killed_process_fails_its_model_alone_and_loads_again(
    playground: Playground, tiny: dict[str, Any], choice: dict[str, str]
) -> None:
    model, process = open_tiny(playground)
    working = playground.started(kind="continue", model=model["id"], choice={}, prompt="a", max_new_tokens=500)
    waiting = playground.started(kind="swap", model=model["id"], choice={})
    until(lambda: playground.client.get(f"/jobs/{working['id']}").json()["progress"])
    os.kill(process, signal.SIGKILL)
    for job in (working, waiting):
        ended = playground.ended(job["id"])
        assert ended["status"] == "failed"
        assert "SIGKILL" in ended["error"]
    failed = until(lambda: (told := playground.model(model["id"]))["status"] == "failed" and told)
    assert "SIGKILL" in failed["error"]
    assert playground.ask(kind="swap", model=model["id"], choice={}).status_code == 409
    playground.done(kind="swap", model=tiny["id"], choice={})
    before = workbenches()
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: playground.client.post(f"/models/{model['id']}/reload"), range(4)))
    assert playground.loaded(model["id"])["status"] == "ready"
    assert len(workbenches() - before) == 1
    assert playground.loaded(model["id"])["status"] == "ready"
    playground.done(kind="swap", model=model["id"], choice=choice)
    assert playground.client.delete(f"/models/{model['id']}").status_code == 204


@pytest.mark.slow
def test_a_closed_model_leaves_no_process_and_no_job(playground: Playground) -> None:
    model, process = open_tiny(playground)
    job = playground.started(kind="continue", model=model["id"], choice={}, prompt="a", max_new_tokens=500)
    assert playground.client.delete(f"/models/{model['id']}").status_code == 204
    assert playground.client.get(f"/models/{model['id']}").status_code == 404
    assert playground.ended(job["id"])["status"] == "failed"
    assert process not in workbenches()


@pytest.mark.slow
def test_so_many_models_are_open_at_once(playground: Playground) -> None:
    opened = []
    while (answer := playground.client.post("/models", json={"source": "tiny"})).status_code == 201:
        opened.append(answer.json()["id"])
        assert len(opened) < 10
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_models")
    for number in opened:
        playground.client.delete(f"/models/{number}")


@pytest.mark.parametrize("source", ["/etc/passwd", "./nothing", "../..", "~/nothing.gguf", "/etc", "\0", "a" * 9000])
def test_a_word_that_names_no_model_is_refused_without_a_path(playground: Playground, source: str) -> None:
    answer = playground.client.post("/models", json={"source": source})
    if answer.status_code == 201:  # perhaps a name on the hub, which only loading tells
        model = playground.loaded(answer.json()["id"])
        playground.client.delete(f"/models/{model['id']}")
        assert model["status"] == "failed"
        message = model["error"]
    else:
        assert answer.status_code == 400
        message = answer.json()["error"]["message"]
    assert str(Path.cwd()) not in message
    assert str(Path.home()) + "/" not in message
    assert "/etc" not in message
