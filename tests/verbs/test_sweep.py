"""The verb `sweep`: a worker that is killed, a trial that is stopped, what is shown and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.errors import ConfigError
from bitnet_train.run.lock import owner_of
from bitnet_train.sweep.study import JOURNAL
from bitnet_train.sweep.trial import Trial
from tests.fixtures.small_runs import SMALL, facts_of, small

RANGES = ["optimizer.lr=1e-4..1e-2", "trainer.batch_rows=2,4"]
CALL = ["quickstart", *RANGES, *SMALL[1:]]


def waited_for(there: Path, seconds: float = 250.0) -> None:
    until = time.monotonic() + seconds
    while not there.is_file():
        assert time.monotonic() < until, f"{there} has not come"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_that_was_killed_is_followed_by_another_that_repeats_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    call = [*CALL, "sweep.trials=2", f"sweep.dir={folder}"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "bitnet_train", "sweep", *call], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    waited_for(folder / "trial-0001.log")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    first = (folder / "trial-0000" / "facts" / "train.json").read_bytes()
    assert main(["sweep", *call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (folder / "trial-0000" / "facts" / "train.json").read_bytes() == first
    assert {row["name"]: row["state"] for row in told["trials"]} == {"trial-0000": "trained", "trial-0001": "trained"}
    best = folder / told["best"]["name"]
    assert told["best"]["nats"] == facts_of(best, "train")["metrics"]["val_ce"]
    assert compose(str(folder / "best.yaml")).config.optimizer.lr == told["best"]["values"]["optimizer.lr"]
    assert "<svg" in (folder / "sweep.html").read_text()
    assert main(["sweep", str(folder)]) == 0, "one that has ended only shows what it came to"
    assert "trial-0001" in capsys.readouterr().out


@pytest.mark.slow
def test_two_workers_that_begin_at_once_share_the_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    call = ["quickstart", "optimizer.lr=1e-3..1e-2/4", "sweep.sampler=grid", *SMALL[1:], f"sweep.dir={folder}"]
    command = [sys.executable, "-m", "bitnet_train", "sweep", *call]
    with (tmp_path / "said").open("w") as said:
        workers = [subprocess.Popen(command, stdout=said, stderr=said) for _ in range(2)]
        assert [worker.wait(timeout=400) for worker in workers] == [0, 0], (tmp_path / "said").read_text()[-3000:]
    assert main(["sweep", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["trials"]
    assert [row["state"] for row in rows] == ["trained"] * 4
    assert len({row["values"]["optimizer.lr"] for row in rows}) == 4, "no point twice, none left out"
    journal = (folder / JOURNAL).read_text().splitlines()
    attributes = [json.loads(line).get("user_attr", {}) for line in journal]
    taken = [found["worker"] for found in attributes if "worker" in found]
    assert len(taken) == 4
    assert {worker["pid"] for worker in taken} == {worker.pid for worker in workers}


@pytest.mark.slow
def test_a_trial_that_is_not_worth_it_is_stopped_as_a_person_would(tmp_path: Path) -> None:
    seen: list[int] = []
    run = tmp_path / "trial"
    words = ["quickstart", *small(run, "trainer.max_steps=500", "trainer.save_every_steps=500")]
    trial = Trial(words, run, tmp_path / "log", lambda step, _: bool(seen.append(step)) or len(seen) == 2)
    steps = list(trial.go())
    assert trial.is_pruned
    assert trial.code == 128 + signal.SIGINT
    assert seen == [1, 2]
    assert max(steps) < 500
    assert list((run / "checkpoints").glob("step-*")), "it has saved"
    assert owner_of(run) is None


def test_what_would_be_tried_is_shown_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    words = ["optimizer.lr=1e-4..1e-2/3", "trainer.batch_rows=2,4", "debug=tiny", f"sweep.dir={folder}"]
    assert main(["sweep", "quickstart", *words, "sweep.sampler=grid", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 trials" in shown
    assert "3 numbers from 0.0001 to 0.01, evenly in the logarithm" in shown
    assert "optimizer.lr=0.001 trainer.batch_rows=4" in shown
    assert "bitnet-train train quickstart debug=tiny" in shown
    assert not folder.exists()


def test_a_run_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    assert main(["sweep", str(tmp_path), *RANGES]) == 2
    assert "names a run" in capsys.readouterr().err


def test_without_optuna_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitnet_train.sweep.study import require_optuna

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'bitnet-train\[sweep\]'"):
        require_optuna()


@pytest.mark.parametrize("words", [["-m", "optimizer.lr=1,2"], ["--multirun"], ["hydra/launcher=joblib"]])
def test_multirun_is_refused_with_the_way(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", *words]) == 2
    said = capsys.readouterr().err
    assert "multirun is not taken" in said
    assert "`bitnet-train sweep RECIPE KEY=LOW..HIGH`" in said


@pytest.mark.parametrize("word", ["optimizer.lr=1e-4,1e-3", "trainer.max_steps=1..10"])
def test_several_values_for_another_verb_are_sent_to_this_one(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", word]) == 2
    assert "are tried by `bitnet-train sweep`" in capsys.readouterr().err
