"""The process of a trial: what is read of its figures, what it sees of its surroundings, how it is ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.sweep import trial
from bitnet_train.sweep.trial import Followed, environment, stop


def test_figures_are_read_as_whole_lines_come(tmp_path: Path) -> None:
    followed, file = Followed(tmp_path), tmp_path / "metrics.jsonl"
    assert list(followed.new()) == []
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "val_ce": 2.5}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text + '{"step": 3, "val')
    assert list(followed.new()) == [(1, None), (2, 2.5)]
    file.write_text(text + '{"step": 3, "val_ce": 2.75}\nnot JSON\n{"step": 2, "val_ce": 2.4}\n')
    assert list(followed.new()) == [(3, 2.75), (2, 2.4)]
    assert followed.figure(keep_best=False) == 2.75
    assert followed.figure(keep_best=True) == 2.4, "of a step that was made twice the later holds"


def test_a_run_without_held_out_text_has_no_figure(tmp_path: Path) -> None:
    assert Followed(tmp_path).figure(keep_best=False) is None


def test_a_trial_does_not_see_what_started_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    seen = environment()
    assert not {"WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS"} & seen.keys()
    assert seen["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_process_that_will_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "GRACE_S", 0.2)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        assert stop(deaf) == -9
