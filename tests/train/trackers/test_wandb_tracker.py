"""Weights & Biases for real, in processes of their own: offline, and online where no server answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bitnet_train.train.trackers.wandb_tracker import is_reachable, wandb_has_key

ROOT = Path(__file__).parents[3]
SECRET = "hf_plantedSecret0123456789abcdef"
PASSWORD = "planted-password"
KEY = "ab" * 20

WANDB = """
import sys
from pathlib import Path
from bitnet_train.train.trackers import guarded_tracker
from bitnet_train.train.trackers.tracker import TrackedRun
from bitnet_train.train.trackers.tracking import build_loggers
guarded_tracker.FINISH_PATIENCE_S = 120.0  # this is about what is written, not when
run_dir, secret, password = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = {"hf_token": secret, "url": f"https://me:{password}@example.org", "deep": [{"password": password}],
          "overrides": [f"logger.api_key={password}", secret], "lr": 0.125}
(logger,) = build_loggers("wandb", TrackedRun(run_dir, "a run", "planted"), config)
logger.log_metrics({"loss": 0.5}, 1)
logger.finalize("success")
print([name for name in ("mlflow", "trackio", "tensorboard") if name in sys.modules])
"""


@pytest.mark.slow
def test_a_real_offline_wandb_run_stays_in_its_folder_and_has_no_secret(tmp_path: Path) -> None:
    home, run_dir, work = tmp_path / "home", tmp_path / "run", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = kept | {"HOME": str(home), "TMPDIR": str(tmp_path)}
    environment["NETRC"] = str(home / "none")
    command = [sys.executable, "-c", WANDB, str(run_dir), SECRET, PASSWORD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[]\n", "no tracker is imported that was not chosen"
    (recording,) = run_dir.rglob("*.wandb")
    content = b"".join(path.read_bytes() for path in run_dir.rglob("*") if path.is_file())
    assert b"planted" in recording.read_bytes(), "the project's name is there, so the file is readable text"
    assert b"[redacted]" in content
    assert SECRET.encode() not in content
    assert PASSWORD.encode() not in content
    assert [path for path in (*home.rglob("*"), *work.rglob("*")) if path.is_file()] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from lightning.pytorch.callbacks import LambdaCallback
from bitnet_train.train.trackers.tracker import TrackedRun
from bitnet_train.train.trackers.tracking import build_loggers
from tests.fixtures.tiny_run import run, tiny_module

def kill(trainer, module, batch, index):
    if module.step == 2:
        (tracker,) = [each for each in trainer.loggers if each.name == "wandb"]
        tracker._wait(60)
        tasks = Path("/proc/self/task").iterdir()
        own = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        (core,) = [pid for pid in own if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(core, signal.SIGKILL)

run_dir = Path(sys.argv[1])
loggers = build_loggers("wandb", TrackedRun(run_dir, "a run", "planted"), {})
killing = LambdaCallback(on_train_batch_start=kill)
print(run(run_dir, tiny_module(steps=5), loggers=loggers, callbacks=[killing], validate_every_steps=0).steps)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the process of wandb is found by /proc")
def test_a_run_whose_wandb_process_is_killed_ends_well_with_one_note(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = kept | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    environment["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).strip(os.pathsep)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr[-3000:]
    assert "Traceback" not in done.stderr, "also not from what wandb does at exit"
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: the tracker wandb failed with ConnectionResetError")
    assert note.endswith("The run goes on without it; figures are in metrics.jsonl.")
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 5


def test_a_key_in_the_environment_means_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not wandb_has_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_has_key()
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_has_key()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


class _Unwell(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def server(kind: str) -> Iterator[str]:
    """Yield the address of a server that `refuses`, is `silent` after accepting, or `errs` at every request."""
    if kind == "errs":
        with ThreadingHTTPServer(("127.0.0.1", 0), _Unwell) as unwell:
            Thread(target=unwell.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{unwell.server_port}"
            unwell.shutdown()
        return
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        if kind == "silent":
            bound.listen(50)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(("kind", "reachable"), [("refuses", False), ("silent", False), ("errs", True)])
def test_a_server_is_asked_for_a_few_seconds(kind: str, reachable: bool, no_proxy: None) -> None:
    start = time.monotonic()
    with server(kind) as url:
        assert is_reachable(url, 0.5) == reachable
    assert time.monotonic() - start < 10, "half a second, on a busy machine"


WITHOUT_NETWORK = """
import sys
from pathlib import Path
from bitnet_train.train.trackers import guarded_tracker, wandb_tracker
from bitnet_train.train.trackers.tracker import TrackedRun
from bitnet_train.train.trackers.tracking import build_loggers
wandb_tracker._TIMEOUTS["init_timeout"] = 2.0
guarded_tracker.FINISH_PATIENCE_S = 120.0  # wandb's own process starts twice here
run_dir, mode = Path(sys.argv[1]), sys.argv[2]
run = TrackedRun(run_dir, "a run", "planted", offline=wandb_tracker.WANDB_MODES[mode])
(logger,) = build_loggers("wandb", run, {"lr": 0.125})
logger.log_metrics({"loss": 0.5}, 1)
logger.finalize("success")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "key"),
    [
        ("refuses", "auto", KEY),
        ("errs", "auto", KEY),
        ("errs", "auto", "too short"),
        ("refuses", "online", ""),
    ],
)
def test_a_run_that_cannot_start_online_is_recorded_offline_with_one_note(
    tmp_path: Path, no_proxy: None, kind: str, mode: str, key: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")} | ({"WANDB_API_KEY": key} if key else {})
    with server(kind) as url:
        command = [sys.executable, "-c", WITHOUT_NETWORK, str(tmp_path / "run"), mode]
        environment["WANDB_BASE_URL"] = url
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: wandb records offline: ")
    assert "`wandb sync " in note
    assert done.stdout == ""
    (recording,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"loss" in recording.read_bytes()
