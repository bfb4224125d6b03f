"""The models of the page, each in a process of its own (`workbench`); one may crash, and the rest goes on.

loading -> ready | failed            `reload` starts a new process for the same file
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bitnet_train.serve.child import Child, ChildGone, Limits
from bitnet_train.serve.playground.clean import Names
from bitnet_train.serve.playground.jobs import Job, Jobs
from bitnet_train.serve.playground.refusal import Refused, not_found

MODULE = "bitnet_train.serve.playground.workbench"
LOAD_S, LOAD_BYTES_PER_S = 300.0, 2_000_000  # until loading is given up: so long, and longer for a large file
HUB_S = 7200.0  # the same of a model that may have to be fetched
CANCEL_S = 15.0  # until a workbench that does not let go of a job is ended
_SHOWN = ("id", "name", "bytes", "status", "error", "description", "layers", "one_bit", "context_tokens", "has_chat")


@dataclass(frozen=True)
class Bench:
    """What a workbench process is started with."""

    folder: Path
    text_tokens: int
    memory: Callable[[int | None], int | None]
    """The most bytes of addresses of a process, by the bytes of its model."""


@dataclass
class Model:
    """One of them; `source` and `folder`, which is its own upload, are never told."""

    source: str
    name: str
    bench: Bench
    names: Names
    jobs: Jobs
    folder: Path | None = None
    bytes: int | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    status: Literal["loading", "ready", "failed"] = "loading"
    error: str | None = None
    description: str = ""
    layers: list[dict[str, Any]] = field(default_factory=list)
    one_bit: bool = False
    context_tokens: int | None = None
    has_chat: bool = False
    is_closed: bool = False
    _child: Child | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _waiting: asyncio.Queue[Job] = field(default_factory=asyncio.Queue)
    _working: Job | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as the page has it."""
        return {name: getattr(self, name) for name in _SHOWN}

    async def start(self) -> None:
        """Start its process, which loads it; return at once."""
        self.status, self.error = "loading", None
        log = self.bench.folder / "logs" / f"{self.id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        argument = {
            "source": self.source,
            "name": self.name,
            "scratch": str(self.bench.folder / "scratch" / self.id),
            "text_tokens": self.bench.text_tokens,
        }
        limits = Limits(memory_bytes=self.bench.memory(self.bytes))
        self._child = await Child.start(MODULE, argument, limits, log)
        if self.is_closed:  # while its process was started
            await self.stop("The model was closed.")
            return
        self._tasks = [asyncio.create_task(self._listen(self._child)), asyncio.create_task(self._work(self._child))]
        seconds = HUB_S if self.bytes is None else LOAD_S + self.bytes / LOAD_BYTES_PER_S
        asyncio.get_running_loop().call_later(seconds, self._give_up, self._child, seconds)

    async def stop(self, reason: str) -> None:
        """End its process and its jobs."""
        child, self._child = self._child, None
        for task in self._tasks:
            task.cancel()
        if child is not None:
            await child.stop(1.0)
        self._fail(reason)

    def take(self, job: Job) -> None:
        """Have a job done after those before it."""
        self._waiting.put_nowait(job)

    def require_ready(self) -> None:
        """Raise Refused where it cannot do a job."""
        if self.status != "ready":
            why = f" {self.error}" if self.error else ""
            raise Refused(409, f"The model {self.name} is {self.status}.{why}", "model", "model_not_ready")

    async def cancel(self, job: Job) -> None:
        """Have a job end soon, done or not."""
        job.is_unwanted = True
        if job is not self._working:
            job.cancelled()
        elif self._child is not None:
            with suppress(ChildGone):
                await self._child.send({"op": "cancel", "job": job.id})
            asyncio.get_running_loop().call_later(CANCEL_S, self._insist, job, self._child)

    def _give_up(self, child: Child, seconds: float) -> None:
        if child is self._child and self.status == "loading":
            self.error = f"{self.name} was not loaded within {seconds:.0f} seconds."
            self._end_child()

    def _insist(self, job: Job, child: Child) -> None:
        if job is self._working and child is self._child:
            self._end_child()

    def _end_child(self) -> None:
        if self._child is not None:
            asyncio.ensure_future(self._child.stop(0.1))  # noqa: RUF006  its end is heard by `_listen`

    async def _listen(self, child: Child) -> None:
        try:
            async for message in child:
                self._hear(message)
        except (KeyError, TypeError, ValueError, AttributeError):  # of a process that a model has taken over
            await child.stop(0.1)
        if child is self._child:
            self.status = "failed"
            self._fail(f"The process of {self.name} is gone: {child.reason}. Load the model again.")

    def _hear(self, message: Mapping[str, Any]) -> None:
        event, data = message.get("event"), message.get("data", {})
        if event == "loaded":
            self._loaded(data)
        elif event == "refused":
            self._fail(self.names.clean(str(data["message"])))
        elif self._working is not None and message.get("job") == self._working.id:
            self._hear_of_job(self._working, str(event), data)

    def _hear_of_job(self, job: Job, event: str, data: Any) -> None:
        if event == "done":
            if job.kind == "bearing":
                self._take_costs(data["layers"])
            job.finish(data)
        elif event == "failed":
            job.fail(self.names.clean(str(data["message"])))
        elif event == "cancelled":
            job.cancelled()
        else:
            job.say(event, {**data, "text": self.names.clean(data["text"])} if event == "log" else data)

    def _loaded(self, data: Mapping[str, Any]) -> None:
        self.status, self.layers, self.description = "ready", list(data["layers"]), str(data["description"])
        self.bytes = self.bytes if data["bytes"] is None else int(data["bytes"])
        self.one_bit, self.has_chat = bool(data["one_bit"]), bool(data["has_chat"])
        self.context_tokens = data["context_tokens"]

    def _take_costs(self, costs: list[dict[str, Any]]) -> None:
        by_name = {cost["layer"]: {"kl": cost["kl"], "share": cost["share"]} for cost in costs}
        for layer in self.layers:
            layer["cost"] = by_name.get(layer["name"], layer["cost"])

    def _fail(self, reason: str) -> None:
        self.status, self.error = "failed", self.error or reason
        for job in self.jobs.of_model(self.id):
            job.fail(reason)

    async def _work(self, child: Child) -> None:
        while True:
            job = await self._waiting.get()
            if job.is_unwanted or job.status != "queued":
                continue
            self._working = job
            job.begin()
            with suppress(ChildGone):  # `_listen` hears of it
                await child.send({"op": job.kind, "job": job.id, "asked": dict(job.asked)})
            await job.ended.wait()
            self._working = None


class Models:
    """All of them, by id; so many at once."""

    def __init__(self, bench: Bench, names: Names, jobs: Jobs, most: int) -> None:
        self._bench, self._names, self._jobs, self._most = bench, names, jobs, most
        self._models: dict[str, Model] = {}

    def __iter__(self) -> Any:
        return iter(self._models.values())

    def get(self, number: str) -> Model:
        """Return a model. Raises Refused."""
        model = self._models.get(number)
        if model is None:
            raise not_found("model", number)
        return model

    def require_room(self) -> None:
        """Raise Refused, status 429, where there are as many as may be."""
        if len(self._models) >= self._most:
            raise Refused(
                429,
                f"{len(self._models)} models are open, and `playground.most_models={self._most}`. Close one first.",
                code="too_many_models",
            )

    async def add(self, source: str, name: str, num_bytes: int | None, folder: Path | None = None) -> Model:
        """Begin to load a model."""
        self.require_room()
        self._names.know(folder or source, name)
        self._names.know(source, name)
        model = Model(source, name, self._bench, self._names, self._jobs, folder, num_bytes)
        self._models[model.id] = model
        await model.start()
        return model

    async def reload(self, number: str) -> Model:
        """Start the process of a model again."""
        model = self.get(number)
        if model.status == "loading":
            return model
        model.status = "loading"  # a second request for it meanwhile starts no second process
        await model.stop("The model was loaded again.")
        model.layers = []
        await model.start()
        return model

    async def remove(self, number: str) -> Model:
        """Close a model; what was uploaded for it is the caller's to remove."""
        model = self.get(number)
        del self._models[number]
        model.is_closed = True
        await model.stop("The model was closed.")
        return model

    async def close(self) -> None:
        """End all processes."""
        for number in list(self._models):
            await self.remove(number)
