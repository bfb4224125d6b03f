"""Processes of one run: one folder, one that writes, and none that outlives the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitnet_train.config import Config, changed
from bitnet_train.errors import ConfigError
from bitnet_train.run.ranks import follow, lead, rank, stop_leading
from bitnet_train.train.loop.launchers import LAUNCHERS
from bitnet_train.train.loop.machine import thread_count

TWO = ["trainer.accelerator=cpu", "trainer.validate_every_steps=0"]
WORDS = ["train", "quickstart", "model.source=tiny", "debug=tiny", "logger=none", "trainer.precision=fp32", *TWO]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for launcher in LAUNCHERS:
        for name in (launcher.size, launcher.rank, *launcher.marks):
            monkeypatch.delenv(name, raising=False)


def test_one_process_is_the_first_whatever_a_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")  # left over from another job
    assert rank() == 0
    monkeypatch.setenv("BITNET_TRAIN_FIRST", str(os.getppid()))
    assert rank() == 1


def test_a_process_that_the_first_one_started_goes_into_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITNET_TRAIN_FIRST", str(os.getppid()))
    monkeypatch.setenv("BITNET_TRAIN_RUN", "runs/mine")
    followed = follow(changed(Config(), {"trainer.resume": "never"}))
    assert (followed.run.dir, followed.quiet, followed.trainer.resume) == ("runs/mine", True, "auto")


def test_what_the_first_process_says_of_itself_ends_with_the_run(tmp_path: Path) -> None:
    lead(tmp_path)
    code = "from bitnet_train.run.ranks import rank; print(rank())"
    environment = os.environ | {"LOCAL_RANK": "1"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "1\n"
    stop_leading()
    environment = os.environ | {"LOCAL_RANK": "1"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "0\n"


def test_processes_that_cannot_ask_each_other_need_the_folder_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setenv(name, "2")
    for name in ("SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "1")
    assert rank() == 1
    with pytest.raises(ConfigError, match=r"Name it: `run\.dir="):
        follow(Config())


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_torchrun_makes_one_run_that_one_process_writes(tmp_path: Path, trainer: str) -> None:
    words = [*WORDS, f"trainer={trainer}", "trainer.max_steps=2", f"run.root={tmp_path}", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TORCHRUN, "bitnet_train", *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (run_dir,) = (tmp_path / "quickstart").iterdir()
    assert json.loads(done.stdout) == json.loads((run_dir / "facts" / "train.json").read_text())
    assert [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").open()] == [1, 2]
    assert list(run_dir.rglob(".*")) == []
    machine = json.loads((run_dir / "facts" / "machine.json").read_text())
    assert machine["num_threads"] == thread_count(2), "each has its share of the cores"


@pytest.mark.slow
def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    words = [
        *WORDS,
        "trainer=ddp",
        "trainer.max_steps=2000",
        "trainer.save_every_steps=2",
        f"run.dir={tmp_path}",
        "--quiet",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bitnet_train", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as first:
        while not list((tmp_path / "checkpoints").glob("step-*")):
            assert first.poll() is None
            time.sleep(0.05)
        (other,) = children(first.pid)
        os.kill(other, signal.SIGKILL)
        assert first.stderr is not None
        said = first.stderr.read()  # ends when both have
    assert first.returncode == 1, said
    assert said.count("TrainingError: Another process of the run has ended") == 1
    assert not (tmp_path / ".lock").exists()


def children(pid: int) -> list[int]:
    found = subprocess.check_output(["ps", "-o", "pid=,args=", "--ppid", str(pid)], text=True).splitlines()
    return [int(line.split()[0]) for line in found if "bitnet_train" in line]
