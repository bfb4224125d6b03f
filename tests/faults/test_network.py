"""F35 and F36: no network, servers that never answer, trackers that fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Warm
from tests.faults.injected import Raise
from tests.faults.runs import MODEL, copy_of, resumes_to

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Return a server that takes a connection and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        server.setblocking(False)
        yield server


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def was_asked(server: socket.socket) -> bool:
    """Whether anybody connected."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_a_run_asks_no_proxy_and_no_server(
    warm: Warm, begun: Path, whole: dict[str, Any], silent: socket.socket, tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    resumes_to(whole, warm, run_dir, **dict.fromkeys(PROXIES, address(silent)))
    assert not was_asked(silent)


def test_a_model_of_the_hub_that_cannot_be_asked_for_is_named_with_the_way_out(warm: Warm, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused at once
        proxies = dict.fromkeys(PROXIES, address(nobody))
        words = [word for word in MODEL if not word.startswith("model.")]
        running = warm.start(tmp_path, "train", "quickstart", "model.source=no-owner/no-model", *words, **proxies)
        done = running.wait()
    assert done.code in (1, 2), done.err
    assert "no-owner/no-model" in done.said
    assert "unexpected" not in done.said


def test_a_wandb_server_that_never_answers_does_not_hold_a_run_up(
    warm: Warm, begun: Path, whole: dict[str, Any], silent: socket.socket, tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    words = ("logger=wandb", "logger.mode=online")
    environment = {"WANDB_BASE_URL": address(silent), "WANDB_API_KEY": KEY}
    done = warm.start(tmp_path, "train", run_dir, *words, **environment).wait()
    assert done.code == 0, done.err
    assert was_asked(silent)
    assert "wandb records offline" in done.said
    assert KEY not in done.said
    resumes_to(whole, warm, run_dir)


@pytest.mark.parametrize("moment", ["log_metrics", "finalize"])
def test_a_tracker_that_raises_is_said_once_and_left_out(
    moment: str, warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    raised = Raise(f"lightning.pytorch.loggers:CSVLogger.{moment}", 0, stays=True)
    done = resumes_to(whole, warm, run_dir, "logger=csv", faults=(raised,))
    assert done.said.count("the tracker csv failed with RuntimeError: injected") == 1
