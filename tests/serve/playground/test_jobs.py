"""Jobs: their states, their events, which are replayed, and what a server that starts again still knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitnet_train.serve.playground.jobs import Job, Jobs
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.store import JobStore
from tests.serve.playground.conftest import Playground, serving


def jobs_of(folder: Path, **limits: int) -> Jobs:
    return Jobs(JobStore(folder), **{"most_waiting": 3, **limits})


def names(job: Job, after: int = 0) -> list[str]:
    return [event.name for event in job.log.after(after)]


def test_a_job_says_how_it_went(tmp_path: Path) -> None:
    job = jobs_of(tmp_path).add("swap", {}, "m1", "tiny")
    assert (job.status, job.seconds, job.title) == ("queued", None, "What the swap costs: tiny")
    job.begin()
    job.say("progress", {"done": 1, "total": 2, "label": "half"})
    job.finish({"kl": 1.0})
    assert (job.status, job.result, job.error) == ("done", {"kl": 1.0}, None)
    assert names(job) == ["status", "progress", "result", "status"]
    assert names(job, after=3) == ["status"]
    assert job.seconds is not None


def test_what_comes_after_the_end_changes_nothing(tmp_path: Path) -> None:
    job = jobs_of(tmp_path).add("swap", {})
    job.cancelled()
    job.fail("too late")
    job.say("log", {"text": "too late"})
    assert (job.status, job.error, names(job)) == ("cancelled", None, ["status"])


def test_so_many_may_wait(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path)
    made = [jobs.add("swap", {}) for _ in range(3)]
    with pytest.raises(Refused) as refused:
        jobs.add("swap", {})
    assert refused.value.status == 429
    made[0].cancelled()
    jobs.add("swap", {})


def test_the_oldest_that_ended_are_forgotten_with_their_files(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, most_kept=2)
    for _ in range(4):
        jobs.add("swap", {}).cancelled()
    jobs.add("swap", {})
    assert len(list(jobs)) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_finished_jobs_are_read_back_and_others_have_failed(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path)
    done, working = jobs.add("swap", {}, "m1"), jobs.add("bearing", {}, "m1")
    done.begin()
    done.say("progress", {"done": 1, "total": 2, "label": ""})
    done.say("log", {"text": "hi"})
    done.finish({"kl": 1.0})
    working.begin()
    again = {job.id: job for job in jobs_of(tmp_path)}
    assert (again[done.id].status, again[done.id].result) == ("done", {"kl": 1.0})
    assert [(event.id, event.name) for event in again[done.id].log.after(0)] == [
        *((1, "status"), (3, "log"), (4, "result"), (5, "status"))
    ]
    assert again[working.id].status == "failed"
    assert "server was ended" in str(again[working.id].error)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"job": 1}', b'{"job": {"id": 1}}\n', b"\xff\n", b"x" * 100])
def test_a_file_that_is_none_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0f.jsonl").write_bytes(content)
    assert list(jobs_of(tmp_path)) == []


def test_events_are_replayed_from_any_place(playground: Playground, tiny: dict[str, Any]) -> None:
    job = playground.done(kind="continue", model=tiny["id"], choice={}, prompt="import os\n", max_new_tokens=6)
    events = playground.events(job["id"])
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert events[-2:] == [
        (events[-1][0] - 1, "result", job["result"]),
        (events[-1][0], "status", {"status": "done"}),
    ]
    assert playground.events(job["id"], after=events[4][0]) == events[5:]
    header = {"Last-Event-ID": str(events[-1][0] - 1)}
    assert playground.client.get(f"/jobs/{job['id']}/events", headers=header).text.count("event: ") == 1


def test_a_thousand_jobs_are_refused_and_the_server_goes_on(playground: Playground, tiny: dict[str, Any]) -> None:
    asked = {"kind": "continue", "model": tiny["id"], "choice": {}, "prompt": "a", "max_new_tokens": 400}
    answers = [playground.ask(**asked) for _ in range(1000)]
    statuses = {answer.status_code for answer in answers}
    assert statuses == {201, 429}
    assert sum(answer.status_code == 201 for answer in answers) < 100
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "too_many_jobs"
    for answer in answers:
        if answer.status_code == 201:
            playground.client.post(f"/jobs/{answer.json()['id']}/cancel")
    ended = [playground.ended(answer.json()["id"]) for answer in answers if answer.status_code == 201]
    assert {job["status"] for job in ended} <= {"cancelled", "done"}
    playground.done(kind="swap", model=tiny["id"], choice={})


@pytest.mark.slow
def test_a_server_that_starts_again_shows_what_was_done(tmp_path: Path) -> None:
    with serving(tmp_path, "tiny") as first:
        model = first.loaded(first.state()["models"][0]["id"])
        job = first.done(kind="swap", model=model["id"], choice={"lm_head": "binary"})
        waiting = first.started(kind="continue", model=model["id"], choice={}, prompt="a", max_new_tokens=500)
    with serving(tmp_path) as second:
        assert second.client.get(f"/jobs/{job['id']}").json()["result"] == job["result"]
        assert second.events(job["id"])[-1][1:] == ("status", {"status": "done"})
        assert second.ended(waiting["id"])["status"] == "failed"
        assert second.state()["models"] == []
