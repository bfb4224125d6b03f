"""A run from the page: only in its own folder, followed live, interrupted so that it saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.run.lock import owner_of
from tests.serve.playground.conftest import Playground, until

QUICK = ["debug=tiny", "trainer.num_threads=1"]


@pytest.mark.parametrize(
    "word",
    [
        "run.dir=elsewhere",
        "dir=elsewhere",
        "run.root=elsewhere",
        "run.name=../up",
        "path=x",
        "model.source=/etc/passwd",
        "source=tiny",
        "logger=wandb",
        "logger.custom={_target_: os.system}",
        "data.path=corpus.txt",
        "evaluate.texts=[a.txt]",
        "generate.prompt=/etc/passwd",
        "data.name=${oc.env:HOME}",
        "+new=1",
        "~model",
        "--help",
        "trainer.max_steps=-1",
        "trainer.max_stepz=1",
        "trainer.max_steps",
        "weight=nothing",
    ],
)
def test_words_that_are_wrong_or_reach_out_are_refused(playground: Playground, word: str) -> None:
    answer = playground.ask(kind="run", recipe="quickstart", overrides=[word])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "overrides")
    assert str(playground.folder) not in answer.text


@pytest.mark.parametrize("recipe", ["nothing", "../../etc/passwd", "/etc/passwd", "mine.yaml"])
def test_a_recipe_that_is_not_there_is_not_found(playground: Playground, recipe: str) -> None:
    assert playground.ask(kind="run", recipe=recipe).status_code == 404


@pytest.mark.slow
def test_a_run_is_followed_to_its_result(playground: Playground) -> None:
    job = playground.done(kind="run", recipe="quickstart", overrides=QUICK)
    events = playground.events(job["id"])
    points = [data for _, name, data in events if name == "point"]
    assert [point["step"] for point in points if "loss" in point] == [1, 2]
    told = playground.client.get(f"/runs/{job['result']['run']}").json()
    assert (told["status"], told["recipe"]) == ("done", "quickstart")
    assert told["curve"][-1]["step"] == 2
    assert told["facts"]["run"]["passed"] is True
    assert told["config"]["trainer.max_steps"] == 2
    assert str(playground.folder) not in json.dumps([told, events, playground.state()])


@pytest.mark.slow
def test_a_run_that_is_cancelled_has_saved(playground: Playground) -> None:
    words = [*QUICK, "trainer.max_steps=100000", "trainer.max_minutes=null"]
    job = playground.started(kind="run", recipe="quickstart", overrides=words)
    waiting = playground.started(kind="run", recipe="quickstart", overrides=words)
    until(lambda: (playground.client.get(f"/jobs/{job['id']}").json()["progress"] or {}).get("done", 0) > 3)
    for each in (waiting, job):
        playground.client.post(f"/jobs/{each['id']}/cancel")
    assert playground.ended(job["id"])["status"] == "cancelled"
    assert playground.ended(waiting["id"])["status"] == "cancelled"
    (run,) = (playground.folder / "playground" / "runs" / "quickstart").glob(f"*_{job['id'][:4]}")
    assert list((run / "checkpoints").glob("step-*"))
    assert owner_of(run) is None
    assert playground.client.get("/runs").json()[0]["status"] == "stopped"
    assert Path(run).is_relative_to(playground.folder)
