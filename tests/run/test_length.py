from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose
from bitnet_train.importers.load import load_pretrained
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.length import row_lengths, settle, untimed
from bitnet_train.train.data.row_lengths import RowLengths
from bitnet_train.train.loop import budget
from bitnet_train.train.loop.budget import StepTime
from tests.fixtures.small_runs import facts_of, small


def words(run_dir: Path, *further: str) -> list[str]:
    return ["train", "quickstart", "--quiet", *small(run_dir, "adapter=none", *further)]


def step_tokens(run_dir: Path) -> int:
    config = facts_of(run_dir, "train")["config"]
    return config["trainer"]["batch_rows"] * config["data"]["context_tokens"]


def test_the_length_is_told_and_module_and_data_stay_as_they_are(tmp_path: Path) -> None:
    asked = ["trainer.max_tokens=380", "data.context_tokens=64", "optimizer.lr=auto", "adapter=none"]
    short = ["trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5"]
    config = compose("quickstart", small(tmp_path, *asked, *short)).config
    original = load_pretrained("tiny")
    data = assembly.data_module(config, original, RunDirectory(tmp_path))
    module = assembly.training_module(config, assembly.prepare_student(config, original), original)
    before = module.max_steps, module.optim
    length = settle(config, module, data, None)
    assert (module.max_steps, module.optim, data.short_steps) == (*before, 0)
    assert length.steps == length.estimate.max_steps == row_lengths(config).steps(380) != module.max_steps
    assert 0 < length.short_steps == row_lengths(config).short_steps(length.steps)
    assert length.optim == replace(module.optim, lr=length.rate)
    known = untimed(config, module, data)
    assert known is not None
    data.short_steps = length.short_steps
    assert known.epochs == length.estimate.epochs == data.epochs(length.steps)


@pytest.mark.slow
def test_tokens_and_the_learning_rate_become_numbers_that_are_kept(tmp_path: Path) -> None:
    assert main(words(tmp_path / "run", "trainer.max_tokens=300", "optimizer.lr=auto", "optimizer.reach=0.01")) == 0
    made, asked = facts_of(tmp_path / "run", "train"), facts_of(tmp_path / "run", "budget")
    assert made["steps"] == asked["max_steps"] == -(-300 // step_tokens(tmp_path / "run"))
    assert made["lr"] == asked["lr"] > 0.0


@pytest.mark.slow
def test_minutes_are_timed_once_and_a_continued_run_keeps_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([StepTime(15.0, 14.0, 16.0)])  # a second timing would be an error
    monkeypatch.setattr(budget, "time_step", lambda *given: next(seconds))
    run_dir = tmp_path / "run"
    assert main(words(run_dir, "trainer.max_minutes=0.5")) == 0
    assert facts_of(run_dir, "train")["steps"] == 2
    assert main(words(run_dir, "trainer.max_minutes=0.5", "trainer.resume=auto")) == 0
    assert facts_of(run_dir, "train")["steps"] == 2


@pytest.mark.slow
def test_tokens_become_steps_of_pieces_and_of_whole_rows(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    short = ("trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5")
    assert main(words(run_dir, "data.context_tokens=64", "trainer.max_tokens=380", *short)) == 0
    made, asked = facts_of(run_dir, "train"), facts_of(run_dir, "budget")
    rows = made["config"]["trainer"]["batch_rows"]
    lengths = RowLengths(rows, 64, 32, 0.5)
    assert made["steps"] == asked["max_steps"] == lengths.steps(380)
    assert asked["tokens"] == lengths.tokens(made["steps"])
    assert 0 < made["tokens"] <= asked["tokens"]
    logged = [
        json.loads(line)["tokens"] for line in (run_dir / "metrics.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert logged[0] <= rows * 32 < logged[-1] - logged[-2]


@pytest.mark.slow
def test_the_time_of_a_step_is_the_mean_of_pieces_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        budget, "time_step", lambda module, batch, *given: StepTime(*[batch["input_ids"].shape[1] / 8] * 3)
    )
    short = ("trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5")
    assert main(words(tmp_path, "data.context_tokens=64", "trainer.max_minutes=0.4", *short)) == 0
    assert facts_of(tmp_path, "budget")["step_s"] == pytest.approx(6.0)
    assert facts_of(tmp_path, "train")["steps"] == 4


def of_30_rows(tmp_path: Path) -> list[str]:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"{i}: " + "one and two. " * 20}) + "\n" for i in range(30)))
    return [
        "data=files",
        f"data.path={text}",
        "data.packing=never",
        "data.validation_fraction=0",
        "trainer.validate_every_steps=0",
    ]


@pytest.mark.slow
def test_epochs_become_steps_that_are_shown_and_kept_when_the_text_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, data = tmp_path / "run", of_30_rows(tmp_path)
    given = [word for word in words(run_dir, *data, "trainer.max_epochs=0.5") if word != "--quiet"]
    assert main(given) == 0
    made, asked = facts_of(run_dir, "train"), facts_of(run_dir, "budget")
    rows = made["data"]["train_rows"]
    assert made["steps"] == asked["max_steps"] == -(-rows // (2 * made["data"]["batch_rows"]))
    assert asked["epochs"] == pytest.approx(0.5, abs=1 / rows)
    said = capsys.readouterr()
    assert f"{made['steps']} steps" in said.out
    assert "0.5 epochs" in said.out
    assert "epoch 0.50" in said.err
    logged = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["epoch"] == asked["epochs"]

    with (tmp_path / "text.jsonl").open("a") as text:
        text.write(json.dumps({"text": "more and more. " * 200}) + "\n")
    assert main(["train", str(run_dir), "--quiet"]) == 0
    assert facts_of(run_dir, "train")["steps"] == made["steps"]


@pytest.mark.slow
def test_a_run_of_epochs_that_was_cut_ends_as_one_that_was_not(tmp_path: Path) -> None:
    data = [*of_30_rows(tmp_path), "trainer.max_epochs=0.4", "trainer.save_every_steps=2", "data.context_tokens=64"]
    weights = {}
    for name in ("whole", "cut"):
        run_dir = tmp_path / name
        assert main(words(run_dir, *data, "trainer.short_row_tokens=32", "trainer.short_row_fraction=0.5")) == 0
        if name == "cut":
            for checkpoint in sorted((run_dir / "checkpoints").iterdir())[1:]:
                shutil.rmtree(checkpoint)
            assert main(["train", str(run_dir), "--quiet"]) == 0
        assert main(["merge", str(run_dir), "--quiet"]) == 0
        weights[name] = load_file(run_dir / "merged" / "model.safetensors")
    assert [key for key, tensor in weights["whole"].items() if not torch.equal(tensor, weights["cut"][key])] == []


@pytest.mark.parametrize("other", ["trainer.max_tokens=300", "trainer.max_minutes=1"])
def test_epochs_and_another_length_are_not_both_taken(
    tmp_path: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path / "run", "trainer.max_epochs=3", other)) == 2
    assert "both say how long the run is" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_checkpoint_is_merged_and_a_run_out_of_patience_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    steps = ["trainer.max_steps=8", "trainer.validate_every_steps=1", "trainer.keep_last=1", "optimizer.lr=1.0"]
    rates = ["trainer.keep_best=true", "trainer.patience=2", "schedule.lr=constant", "trainer.divergence_nats=null"]
    assert main([word for word in words(run_dir, *steps, *rates) if word != "--quiet"]) == 0
    trained = facts_of(run_dir, "train")
    assert trained["is_stopped_early"]
    assert trained["best_step"] == trained["steps"] - 2
    assert f"Stopped after step {trained['steps']} of 8" in capsys.readouterr().out
    assert main(["merge", str(run_dir)]) == 0
    merged = facts_of(run_dir, "merge")
    assert (merged["step"], merged["best"]["val_ce"]) == (trained["best_step"], trained["best_val_ce"])
    assert f"Merged step {trained['best_step']}, the best" in " ".join(capsys.readouterr().out.split())
