"""What training starts from: made once, loaded afterwards, and never mixed up with another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitnet_train.__main__ import main
from bitnet_train.model.converted import load_converted
from bitnet_train.quant.narrow_table import round_narrow
from tests.fixtures.small_runs import SMALL

pytestmark = pytest.mark.slow  # one run for most of them
SAVING = [*SMALL, "trainer.save_every_steps=1"]
START = ["init=error_feedback", "init.equalise=true", "init.calibration_rows=4", "weight.tables=int4"]
START += ["blockwise=on", "blockwise.rows=4", "blockwise.steps=2", "blockwise.batch_rows=2"]


def train(run_dir: Path, *words: str) -> int:
    return main(["train", "quickstart", "--quiet", f"run.dir={run_dir}", *SAVING, *words])


def merged(run_dir: Path) -> dict[str, torch.Tensor]:
    assert main(["merge", str(run_dir), "--quiet"]) == 0
    return load_file(run_dir / "merged" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("start") / "run"
    assert train(run_dir, *START) == 0
    return run_dir


def test_the_start_is_kept_with_its_figures_and_its_scratch_is_not(finished: Path) -> None:
    facts = json.loads((finished / "facts" / "start.json").read_text())
    assert (finished / "start" / "model.safetensors").is_file()
    assert len(facts["blockwise"]["blocks"]) == 4
    assert facts["tokens"] == 2 * 2 * 64
    assert facts["equalise"]["error_ratio"]
    assert list((finished / "cache").glob("start-*")) == []


def test_a_head_in_few_bits_starts_from_codes_that_make_up_for_each_other(finished: Path) -> None:
    errors = json.loads((finished / "facts" / "start.json").read_text())["head"]
    assert 0 < errors["fed_back"] < errors["nearest"]
    head = load_converted(finished / "start")[0].get_output_embeddings().weight.detach()
    again = torch.empty_like(head)
    round_narrow(head, 4, again)
    assert torch.equal(head, again)


def test_blocks_may_read_pieces_of_the_rows_that_training_reads(finished: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "run", *START, "blockwise.row_tokens=32") == 0
    whole, cut = (
        json.loads((run / "facts" / "start.json").read_text())["blockwise"] for run in (finished, tmp_path / "run")
    )
    assert cut["tokens"] == 2 * 2 * 32
    assert cut["text_tokens"] == whole["text_tokens"]


def test_what_the_start_cost_is_part_of_the_budget(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((finished / "facts" / "train.json").read_text())["before"]
    assert before["tokens"] == 256
    assert before["seconds"] > 0
    words = [*START, "trainer.max_tokens=512", "trainer.batch_rows=2", "trainer.micro_rows=2"]
    assert train(tmp_path / "run", *words) == 0
    assert json.loads((tmp_path / "run" / "facts" / "train.json").read_text())["steps"] == (512 - 256) // (2 * 64)
    assert (
        main(["train", "quickstart", f"run.dir={tmp_path / 'short'}", *SAVING, *START, "trainer.max_tokens=256"]) == 2
    )
    assert "`trainer.max_tokens=256` is used up before training" in capsys.readouterr().err


def test_the_summary_of_a_run_counts_what_came_before_the_first_step_and_names_each_text(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir, ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "book.txt").write_text("A text is read in windows. " * 40)
    assert (
        main(["run", "quickstart", f"run.dir={run_dir}", *SAVING, *START, f"evaluate.texts=[{tmp_path}/book.txt]"]) == 0
    )
    trained = json.loads((run_dir / "facts" / "train.json").read_text())
    summary = json.loads((run_dir / "facts" / "run.json").read_text())
    cost = summary["train"]
    assert cost["before"] == trained["before"]
    assert cost["tokens"] == trained["tokens"] + 256
    assert cost["seconds"] == trained["seconds"] + trained["before"]["seconds"]
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "256 of them on blocks" in printed
    book = next(text for text in summary["texts"] if not text["held_out"])
    assert f"perplexity of book {book['full_precision']:.2f}" in printed
    assert f"{book['trained']:.2f} ({book['ratio']:.2f}x)" in printed


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(finished: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(finished, cut)
    shutil.rmtree(cut / "checkpoints" / "step-000002")
    (cut / "config.yaml").write_text((finished / "config.yaml").read_text().replace(str(finished), str(cut)))
    assert main(["train", str(cut), "--quiet"]) == 0
    whole, resumed = merged(finished), merged(cut)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_start_is_used_again_without_checkpoints(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    shutil.rmtree(again / "checkpoints")
    before = (again / "start" / "model.safetensors").stat().st_mtime_ns
    assert train(again, *START) == 0
    assert (again / "start" / "model.safetensors").stat().st_mtime_ns == before


def test_a_start_under_other_settings_is_made_anew(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    shutil.rmtree(other / "checkpoints")
    assert train(other, *START, "blockwise.steps=1") == 0
    assert json.loads((other / "facts" / "start.json").read_text())["tokens"] == 1 * 2 * 64


def test_checkpoints_from_another_start_are_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(finished), "blockwise.steps=1"]) == 2
    assert "blockwise.steps: 2 -> 1\n" in capsys.readouterr().err


def test_checkpoints_whose_start_is_gone_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = shutil.copytree(finished, tmp_path / "gone")
    shutil.rmtree(gone / "start")
    assert main(["train", str(gone)]) == 2
    assert "a start that is not there any more" in capsys.readouterr().err


def test_a_run_with_a_start_goes_on_under_another_schedule(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = shutil.copytree(finished, tmp_path / "on")
    before = (on / "start" / "model.safetensors").stat().st_mtime_ns
    assert main(["train", str(on), "schedule.lr=constant", "trainer.max_steps=3"]) == 0
    assert "trainer.max_steps" in capsys.readouterr().out
    assert (on / "start" / "model.safetensors").stat().st_mtime_ns == before


def test_the_low_rank_kind_rebuilds_frozen_latents_from_the_start(tmp_path: Path) -> None:
    words = ["adapter=lora_inside", "adapter.latent_shrink=0.1", "optimizer.lr=1e-9", *START]
    assert train(tmp_path / "run", *words) == 0
    once, twice = merged(tmp_path / "run"), merged(tmp_path / "run")
    assert [name for name in once if not torch.equal(once[name], twice[name])] == []
    start = load_file(tmp_path / "run" / "start" / "model.safetensors")
    name = next(name for name in start if name.endswith("q_proj.weight"))
    torch.testing.assert_close(once[name], 0.1 * start[name], atol=1e-6, rtol=0)  # two steps at a rate of 1e-9


def test_without_any_of_it_there_is_no_start(tmp_path: Path) -> None:
    assert train(tmp_path / "run") == 0
    assert not (tmp_path / "run" / "start").exists()


def test_a_model_that_is_1_bit_already_is_refused(finished: Path, tmp_path: Path, capsys) -> None:
    assert main(["merge", str(finished), "--quiet"]) == 0
    assert main(["export", str(finished), "--quiet"]) == 0
    words = ["run.dir=" + str(tmp_path / "run"), *SAVING, f"model.source={finished / 'artefact'}", "blockwise=on"]
    assert main(["train", "quickstart", *words]) == 2
    assert "1-bit already" in capsys.readouterr().err
