from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.train import budget
from bitnet_train.train.budget import StepTime
from bitnet_train.train.row_lengths import RowLengths


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
    seconds = iter([StepTime(15.0, 14.0, 16.0)])  # a second timing would be an error
    monkeypatch.setattr(budget, "time_step", lambda *given: next(seconds))
    run_dir = tmp_path / "run"
    assert main(words(run_dir, "trainer.max_minutes=0.5")) == 0
    assert facts(run_dir, "train")["steps"] == 2
    assert main(words(run_dir, "trainer.max_minutes=0.5", "trainer.resume=auto")) == 0
    assert facts(run_dir, "train")["steps"] == 2


def test_tokens_become_steps_of_pieces_and_of_whole_rows(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    short = ("trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5")
    assert main(words(run_dir, "data.context_tokens=64", "trainer.max_tokens=380", *short)) == 0
    made, asked = facts(run_dir, "train"), facts(run_dir, "budget")
    rows = made["config"]["trainer"]["batch_rows"]
    lengths = RowLengths(rows, 64, 32, 0.5)
    assert made["steps"] == asked["max_steps"] == lengths.steps(380)
    assert asked["tokens"] == lengths.tokens(made["steps"])
    assert 0 < made["tokens"] <= asked["tokens"]
    logged = [
        json.loads(line)["tokens"] for line in (run_dir / "metrics.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert logged[0] <= rows * 32 < logged[-1] - logged[-2]


def test_the_time_of_a_step_is_the_mean_of_pieces_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        budget, "time_step", lambda module, batch, *given: StepTime(*[batch["input_ids"].shape[1] / 8] * 3)
    )
    short = ("trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5")
    assert main(words(tmp_path, "data.context_tokens=64", "trainer.max_minutes=0.4", *short)) == 0
    assert facts(tmp_path, "budget")["step_s"] == pytest.approx(6.0)
    assert facts(tmp_path, "train")["steps"] == 4
