from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.train import budget


def words(run_dir: Path, *further: str) -> list[str]:
    small = ["model.source=tiny", "debug=tiny", "logger=none", f"run.dir={run_dir}", "trainer.num_threads=1"]
    return ["train", "quickstart", "--quiet", *small, "adapter=none", *further]


def facts(run_dir: Path, stage: str) -> dict:
    return json.loads((run_dir / "facts" / f"{stage}.json").read_text())


def step_tokens(run_dir: Path) -> int:
    config = facts(run_dir, "train")["config"]
    return config["trainer"]["batch_rows"] * config["data"]["context_tokens"]


def test_tokens_and_the_learning_rate_become_numbers_that_are_kept(tmp_path: Path) -> None:
    assert main(words(tmp_path / "run", "trainer.max_tokens=300", "optimizer.lr=auto", "optimizer.reach=0.01")) == 0
    made, asked = facts(tmp_path / "run", "train"), facts(tmp_path / "run", "budget")
    assert made["steps"] == asked["max_steps"] == -(-300 // step_tokens(tmp_path / "run"))
    assert made["lr"] == asked["lr"] > 0.0


def test_minutes_are_timed_once_and_a_continued_run_keeps_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([15.0])  # a second timing would be an error
    monkeypatch.setattr(budget, "time_step", lambda *given: next(seconds))
    run_dir = tmp_path / "run"
    assert main(words(run_dir, "trainer.max_minutes=0.5")) == 0
    assert facts(run_dir, "train")["steps"] == 2
    assert main(words(run_dir, "trainer.max_minutes=0.5", "trainer.resume=auto")) == 0
    assert facts(run_dir, "train")["steps"] == 2
