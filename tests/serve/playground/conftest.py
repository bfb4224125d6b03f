"""A real server of the playground, in this process, with the bundled model open; its models' processes are real too."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from bitnet_train.serve.guard import guarded
from bitnet_train.serve.playground.app import application, rules
from bitnet_train.serve.settings import PlaygroundConfig
from bitnet_train.verbs.playground import house

TOKEN = "token-of-the-tests"
PATIENCE_S = 240.0


@dataclass
class Playground:
    """A server that runs, and its client, which shows the token."""

    port: int
    folder: Path
    client: Any
    reached: dict[str, Any] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        return self.client.get("/state").json()

    def model(self, number: str) -> dict[str, Any]:
        return self.client.get(f"/models/{number}").json()

    def loaded(self, number: str) -> dict[str, Any]:
        """Wait until a model is ready or has failed, and return it."""
        return until(lambda: (model := self.model(number))["status"] != "loading" and model)

    def ask(self, **body: Any) -> Any:
        return self.client.post("/jobs", json=body)

    def started(self, **body: Any) -> dict[str, Any]:
        answer = self.ask(**body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ended(self, number: str) -> dict[str, Any]:
        """Wait until a job has ended, and return it."""
        return until(lambda: (job := self.client.get(f"/jobs/{number}").json())["status"] in ENDS and job)

    def done(self, **body: Any) -> dict[str, Any]:
        job = self.ended(self.started(**body)["id"])
        assert job["status"] == "done", job
        return job

    def events(self, number: str, after: int = 0) -> list[tuple[int, str, Mapping[str, Any]]]:
        """Return all events of a job, once it has ended."""
        answer = self.client.get(f"/jobs/{number}/events", params={"after": after})
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [event for block in answer.text.split("\n\n") if (event := _event(block)) is not None]


ENDS = ("done", "failed", "cancelled")


def _event(block: str) -> tuple[int, str, Mapping[str, Any]] | None:
    fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
    return (int(fields["id"]), fields["event"], json.loads(fields["data"])) if "id" in fields else None


def until(asked: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while not (answer := asked()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
    return answer


@contextmanager
def serving(folder: Path, *models: str, **settings: Any) -> Iterator[Playground]:
    """Run a server below a folder until the block ends."""
    configured = PlaygroundConfig(dir=str(folder / "playground"), **settings)
    app = guarded(
        application(configured, house(folder / "runs"), models),
        hosts=("127.0.0.1",),
        **rules(configured, TOKEN),
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        options = {"log_level": "warning", "lifespan": "on", "loop": "asyncio", "timeout_graceful_shutdown": 1}
        server = uvicorn.Server(uvicorn.Config(app, **options))  # uvloop sees no child end in another thread
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        headers = {"Authorization": f"Bearer {TOKEN}"}
        base = f"http://127.0.0.1:{port}/playground/api"
        try:
            with httpx.Client(base_url=base, headers=headers, timeout=PATIENCE_S) as client:
                yield Playground(port, folder, client)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Return a server with the bundled model, one a worker; what tests add to it they take away."""
    with serving(tmp_path_factory.mktemp("playground"), "tiny", text_tokens=128) as found:
        assert found.loaded(found.state()["models"][0]["id"])["status"] == "ready"
        yield found


@pytest.fixture
def tiny(playground: Playground) -> dict[str, Any]:
    """Return the bundled model, which is ready."""
    model = playground.loaded(playground.state()["models"][0]["id"])
    assert (model["name"], model["status"]) == ("tiny", "ready")
    return model


@pytest.fixture
def choice(tiny: dict[str, Any]) -> dict[str, str]:
    """Return every layer of attention and mlp at one bit, one of them ternary."""
    names = [layer["name"] for layer in tiny["layers"] if layer["part"] in ("attention", "mlp")]
    return {**dict.fromkeys(names, "binary"), "model.layers.0.mlp.down_proj": "ternary"}
