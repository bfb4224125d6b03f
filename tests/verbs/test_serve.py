"""The verb: what it takes, what it refuses before anything is loaded, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.verbs.serve import _by_name, _variables
from tests.fixtures.serving import Start

KEY = "a-key-of-this-test-0123456789"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Name what to serve"),
        (["no_such_thing"], "`no_such_thing` is no model"),
        (["tiny", "tiny"], "Two models are called `tiny`"),
        (["tiny", "serve.names=[a,b]"], "`serve.names` has 2 names for 1 models"),
        (["tiny", "serve.host=0.0.0.0"], "needs a key of 16 characters"),
        (["tiny", "serve.host=256.1.1.1"], "needs a key"),
        (["tiny", "serve.key_file=/no/such/file"], "`serve.key_file=/no/such/file` cannot be read"),
        (["tiny", "serve.port=70000"], "`serve.port=70000` (command line) is out of range"),
        (["tiny", "generate.seed=3"], "`bitnet-train serve` does not read it"),
    ],
)
def test_what_cannot_be_served_is_wrong_usage(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_key_that_is_too_short_opens_no_other_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BITNET_TRAIN_KEY", "short")
    assert main(["serve", "tiny", "serve.host=0.0.0.0", "serve.port=0"]) == 2
    told = capsys.readouterr()
    assert "needs a key of 16 characters" in told.err
    assert "short" not in told.out + told.err


def test_a_port_that_is_taken_is_refused_with_the_way_out(
    start_serving: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_serving("tiny")
    assert main(["serve", "tiny", f"serve.port={server.address.rpartition(':')[2]}"]) == 2
    assert "`serve.port=0` takes a free port" in capsys.readouterr().err


def test_models_are_called_like_their_files_and_a_run_like_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    (run / "artefact").mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    (run / "artefact" / "manifest.json").write_text('{"format": "bitnet_train.packed"}')
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(20))
    config = compose().config
    words = [str(run), str(tmp_path / "model.gguf"), "tiny", "org/name"]
    assert [name for name, _ in _by_name(config, words)] == ["mine", "model", "tiny", "org/name"]
    assert dict(_by_name(config, words))["org/name"] == "hub:org/name"


def test_a_run_is_asked_with_the_template_variables_of_its_training(tmp_path: Path) -> None:
    trained = compose("quickstart", ["data.source=files", "data.path=x", "data.chat_template_variables={a: 1}"]).config
    (tmp_path / "config.yaml").write_text(to_yaml(trained))
    assert _variables(compose().config, str(tmp_path)) == {"a": 1}
    asked = compose(None, ["data.kind=chat", "data.chat_template_variables={a: 2}"]).config
    assert _variables(asked, str(tmp_path)) == {"a": 2}


@pytest.mark.slow
def test_the_key_is_asked_for_and_shown_nowhere(start_serving: Start, pretrained_folder: Path) -> None:
    server = start_serving(pretrained_folder, "serve.names=[tiny]", BITNET_TRAIN_KEY=KEY)
    assert "$BITNET_TRAIN_KEY" in server.said[1]
    body = {"prompt": "def", "max_tokens": 2}
    assert server.ask("/v1/completions", body)[0] == 401
    assert server.ask("/v1/completions", body, {"Authorization": "Bearer wrong"})[0] == 401
    assert server.ask("/v1/completions", body, {"Authorization": f"Bearer {KEY}"})[0] == 200
    assert server.ask("/health")[0] == 200
    environment = [Path(f"/proc/{pid}/environ").read_bytes() for pid in server.workers()]
    assert environment
    assert all(KEY.encode() not in each for each in environment)
    done = subprocess.run(
        ["sh", "-c", f"{server.said[1]} -sS"],
        capture_output=True,
        text=True,
        env={**os.environ, "BITNET_TRAIN_KEY": KEY},
    )
    assert '"choices"' in done.stdout, done.stderr
    server.stop()
    assert KEY not in server.log.read_text() + str(server.said)


@pytest.mark.slow
def test_a_page_of_another_origin_and_another_host_name_are_refused(
    start_serving: Start, pretrained_folder: Path
) -> None:
    server = start_serving(pretrained_folder, "serve.names=[tiny]", "serve.origins=[http://localhost:3000]")
    body = {"prompt": "def", "max_tokens": 2}
    assert server.ask("/v1/completions", body, {"Origin": "http://evil.example"})[0] == 403
    assert server.ask("/v1/completions", body, {"Host": "evil.example"})[0] == 421
    assert server.ask("/v1/completions", body, {"Origin": "http://localhost:3000"})[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_ends_at_a_signal_with_its_worker_even_while_it_writes(
    number: signal.Signals, code: int, start_serving: Start, pretrained_folder: Path
) -> None:
    server = start_serving(pretrained_folder, "serve.names=[tiny]")
    body = '{"prompt": "def", "max_tokens": 500, "ignore_eos": true, "stream": true, "n": 8}'
    client = subprocess.Popen(
        ["curl", "-sN", f"{server.address}/v1/completions", "-d", body], stdout=subprocess.DEVNULL
    )
    while server.figure("texts_running") < 8:
        time.sleep(0.01)
    workers = server.workers()
    server.process.send_signal(number)
    assert server.process.wait(20) == code
    client.wait(10)
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_model_that_makes_room_is_loaded_again_and_one_that_cannot_be_loaded_is_told(
    start_serving: Start, pretrained_folder: Path, damaged: Path
) -> None:
    (damaged / "weights.safetensors").write_bytes(b"x" * 100)
    server = start_serving(pretrained_folder, pretrained_folder, damaged, "serve.names=[one,two,bad]")
    for name in ("one", "two", "one"):
        assert server.ask("/v1/completions", {"model": name, "prompt": "def", "max_tokens": 2})[0] == 200
        assert len(server.workers()) == 1
    status, answer = server.ask("/v1/completions", {"model": "bad", "prompt": "def"})
    assert (status, answer["error"]["code"]) == (503, "model_unavailable")
    assert str(damaged) not in str(answer)
    assert "bad cannot be loaded" in server.log.read_text()
    assert server.ask("/v1/completions", {"model": "two", "prompt": "def", "max_tokens": 2})[0] == 200
