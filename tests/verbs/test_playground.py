"""The verb `playground`: who may reach it, and the address that it prints."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from bitnet_train.__main__ import main
from bitnet_train.run.lock import locked
from bitnet_train.serve.api.server import KEY_VARIABLE
from bitnet_train.verbs import playground as verb

COMMAND = [sys.executable, "-m", "bitnet_train", "playground", "serve.port=0"]


def test_another_address_needs_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert main(["playground", "serve.host=0.0.0.0", f"playground.dir={tmp_path}"]) == 2
    assert "that needs a key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.max_steps=3"], "has no effect"),
        (["playground.most_models=0"], "1 or more"),
        (["./nothing.gguf"], "is no model"),
        (["tiny", "tiny", "playground.most_models=1"], "2 models are named"),
        (["playground.dir=/proc/nothing"], "cannot"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["playground", *words]) != 0
    assert said in capsys.readouterr().err


def test_without_its_packages_it_says_how_to_install_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    assert main(["playground"]) == 2
    assert "pip install 'bitnet-train[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["playground", f"serve.port={taken.getsockname()[1]}", f"playground.dir={tmp_path}"]) == 2
    assert "serve.port" in capsys.readouterr().err


def test_a_folder_has_one_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with locked(tmp_path, "bitnet-train playground"):
        assert main(["playground", "serve.port=0", f"playground.dir={tmp_path}"]) == 2
    assert "is in use" in capsys.readouterr().err


@pytest.mark.slow
def test_the_address_that_is_printed_opens_it_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, f"playground.dir={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        text = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        found = re.search(r"(http://127\.0\.0\.1:\d+/playground)/\?token=([\w-]{20,})", text)
        assert found is not None
        headers = {"Authorization": f"Bearer {found[2]}"}
        assert httpx.get(f"{found[1]}/api/state", headers=headers, timeout=60).status_code == 200
        assert httpx.get(f"{found[1]}/", timeout=60).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in complaints
    assert found[2] not in complaints
