"""One job, from the moment it is asked for until it is forgotten, and all of them.

    queued -> running -> done | failed | cancelled

Who does a job (`models.Model`, `run_jobs.RunJobs`) tells it what happens; the job tells its log, and the disk.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bitnet_train.serve.playground.events import EventLog
from bitnet_train.serve.playground.refusal import Refused, not_found
from bitnet_train.serve.playground.store import JobStore, Kept

Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDS = ("done", "failed", "cancelled")
MOST_KEPT = 200
TITLES = {
    "bearing": "How each layer bears one bit",
    "swap": "What the swap costs",
    "continue": "Both continue",
    "benchmark": "How fast",
    "run": "Run",
}
_SHOWN = ("id", "kind", "model", "title", "status", "progress", "seconds", "result", "error", "created")


@dataclass
class Job:
    """See above. `asked` is what whoever does it needs."""

    kind: str
    model: str | None
    title: str
    asked: Mapping[str, Any]
    store: JobStore
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    status: Status = "queued"
    progress: Mapping[str, Any] | None = None
    result: Any = None
    error: str | None = None
    created: float = field(default_factory=time.time)
    log: EventLog = field(default_factory=EventLog)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_unwanted: bool = False
    began: float | None = None
    took: float | None = None

    @property
    def seconds(self) -> float | None:
        """How long it works, or worked."""
        return self.took if self.began is None else time.monotonic() - self.began

    def to_dict(self) -> dict[str, Any]:
        """Return it as the page has it."""
        return {name: getattr(self, name) for name in _SHOWN}

    def say(self, name: str, data: Mapping[str, Any]) -> None:
        """Pass on what it says while it works."""
        if self.status in ENDS:
            return
        if name == "progress":
            self.progress = data
        self.store.event(self.id, self.log.add(name, data))

    def begin(self) -> None:
        """Say that it is being worked on."""
        self.status, self.began = "running", time.monotonic()
        self._tell_status()

    def finish(self, result: Any) -> None:
        """Say that it is done."""
        self.result = result
        self.say("result", result if isinstance(result, dict) else {"rows": result})
        self._end("done")

    def fail(self, message: str) -> None:
        """Say why it failed."""
        if self.status not in ENDS:
            self.error = message
            self.say("error", {"message": message})
            self._end("failed")

    def cancelled(self) -> None:
        """Say that it was cancelled."""
        self._end("cancelled")

    def _end(self, status: Status) -> None:
        if self.status in ENDS:
            return
        self.took, self.began = self.seconds, None
        self.store.event(self.id, self.log.add("status", {"status": status}))
        self.status = status
        self.store.job(self.id, self.to_dict())
        self.log.close()
        self.ended.set()

    def _tell_status(self) -> None:
        self.store.event(self.id, self.log.add("status", {"status": self.status}))
        self.store.job(self.id, self.to_dict())


class Jobs:
    """All jobs that are known, the oldest first; so many may wait, and so many are kept."""

    def __init__(self, store: JobStore, most_waiting: int, most_kept: int = MOST_KEPT) -> None:
        self._store, self._most_waiting, self._most_kept = store, most_waiting, most_kept
        self._jobs: dict[str, Job] = {}
        for kept in store.read_back():
            job = _read_back(kept, store)
            self._jobs[job.id] = job
        self._forget_oldest()

    def __iter__(self) -> Any:
        return iter(self._jobs.values())

    def get(self, number: str) -> Job:
        """Return a job. Raises Refused."""
        job = self._jobs.get(number)
        if job is None:
            raise not_found("job", number)
        return job

    def add(self, kind: str, asked: Mapping[str, Any], model: str | None = None, about: str = "") -> Job:
        """Make a job that waits. Raises Refused, status 429, where too many do."""
        waiting = sum(job.status in ("queued", "running") for job in self)
        if waiting >= self._most_waiting:
            raise Refused(429, f"{waiting} jobs wait already. Cancel some, or wait.", code="too_many_jobs")
        job = Job(kind, model, f"{TITLES[kind]}{about and f': {about}'}", asked, self._store)
        self._jobs[job.id] = job
        self._store.job(job.id, job.to_dict())
        self._forget_oldest()
        return job

    def of_model(self, model: str) -> list[Job]:
        """Return the jobs of a model that have not ended."""
        return [job for job in self if job.model == model and job.status not in ENDS]

    def _forget_oldest(self) -> None:
        ended = [job.id for job in self if job.status in ENDS]
        for number in ended[: max(0, len(self._jobs) - self._most_kept)]:
            del self._jobs[number]
            self._store.forget(number)


def _read_back(kept: Kept, store: JobStore) -> Job:
    values = kept.job
    job = Job(str(values["kind"]), values.get("model"), str(values.get("title", "")), {}, store, id=str(values["id"]))
    job.created, job.progress, job.took = float(values["created"]), values.get("progress"), values.get("seconds")
    for event in kept.events:
        job.log.add(event.name, event.data, event.id)
    if values["status"] in ENDS:
        job.result, job.error, job.status = values.get("result"), values.get("error"), values["status"]
        job.log.close()
        job.ended.set()
    else:
        job.fail("The server was ended while this job waited or worked.")
    return job
