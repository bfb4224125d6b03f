"""`train` at the command line: what it shows before, what it says after, and where it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.__main__ import _run_stage, main
from bitnet_train.cli.arguments import read_call
from bitnet_train.run import dry_run
from tests.fixtures.small_runs import facts_of, small


@pytest.mark.slow
def test_nothing_is_written_outside_the_run_directory(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")}
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    words = ["train", "quickstart", "--quiet", *small(tmp_path / "run", "logger=wandb")]
    subprocess.run(
        [sys.executable, "-m", "bitnet_train", *words], check=True, cwd=tmp_path / "here", env=environment, timeout=240
    )
    assert list((tmp_path / "here").rglob("*")) == []
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*")), "wandb ran offline, inside the run directory"


@pytest.mark.slow
def test_dry_run_shows_the_mask_and_leaves_nothing_behind(
    tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "lora_sft_chat", "--dry-run", "--json", *small(tmp_path / "run", f"data.path={chats}")]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    trained = "".join(part["text"] for part in told["first_row"] if part["trained"])
    assert trained.startswith("It is ")
    parts = ("weights", "gradients", "optimizer", "teacher", "activations", "logits")
    assert all(told["memory"][part] > 0 for part in parts)
    assert max(told["memory"][part] for part in parts) < told["memory"]["most"] == told["memory_bytes"]
    assert told["memory"]["fits"] == (told["memory"]["most"] <= told["memory"]["free"])
    assert "+ 1?" not in trained
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_ends_with_its_figures_the_run_directory_and_the_next_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", "quickstart", *small(run_dir)]) == 0
    *_, figures, following = capsys.readouterr().out.splitlines()
    metrics = facts_of(run_dir, "train")["metrics"]
    assert figures.startswith("Trained 2 steps, ")
    assert f"perplexity {metrics['val_perplexity']:.4g}, KL {metrics['val_kl']:.4g}" in figures
    assert figures.endswith(f"Run directory: {run_dir}")
    assert following == f"Next: bitnet-train merge {run_dir}"


@pytest.mark.slow
def test_dry_run_in_a_pipe_puts_trained_text_in_brackets_and_says_rows_trained_tokens_and_padding(
    tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "lora_sft_chat", "--dry-run", *small(tmp_path / "run", f"data.path={chats}")]) == 0
    printed = capsys.readouterr().out
    first_row = printed.split("[[double brackets]]:")[1]
    assert "[[It is " in first_row
    assert "user" in first_row.split("[[It is ")[0]
    told = re.search(
        r"Rows: (\d+) with ([\d,]+) tokens, (\d+)% of them trained on; (\d+)% of the rows is padding", printed
    )
    assert told is not None
    assert int(told[1]) <= len(chats.read_text().splitlines())
    assert 0 < int(told[3]) < 100
    assert 0 < int(told[4]) < 100


@pytest.mark.slow
def test_a_dry_run_tells_all_that_needs_no_weights_before_it_opens_them(
    tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "lora_sft_chat", "--dry-run", *small(tmp_path / "run", f"data.path={chats}")]
    assert main(words) == 0
    told, _, timed = capsys.readouterr().out.partition("All above needed no weights.")
    steps, memory = re.search(r"Length: (.*) tokens", told)[1], re.search(r"; (\S+ GB) and", told)[1]  # type: ignore[index]
    assert told.startswith("Dry run of lora_sft_chat, model tiny")
    for figure in (
        "Rows:",
        "Packed:",
        "[[It is",
        "layers become 1-bit",
        "parameters train (",
        f"{memory} and",
        "Memory: ",
    ):
        assert figure in told
    assert f"Budget: {steps} tokens" in timed, "the outline has the steps of the model"
    assert f"{memory} and" in timed, "and its memory"

    def no_weights(source: str) -> None:
        raise AssertionError(f"the weights of {source} are opened")

    monkeypatch.setattr(dry_run, "load_pretrained", no_weights)
    with pytest.raises(AssertionError, match="are opened"):
        _run_stage(read_call(words))
    assert "Length: " in capsys.readouterr().out, "nothing was read before they were known"


@pytest.mark.slow
def test_a_dry_run_on_text_that_the_model_writes_says_why_its_weights_come_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=self", "data.self_corpus.documents=40", "data.self_corpus.document_tokens=32", "data.min_tokens=2"]
    assert main(["train", "quickstart", "--dry-run", *small(tmp_path / "run", *words)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Opening the weights of tiny first (`data.source=self`") < printed.index("Rows:")
    assert "All above needed no weights" not in printed


@pytest.mark.slow
def test_an_outside_adapter_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", *small(tmp_path / "run", "adapter=lora_outside")]) == 2
    assert "lora_outside" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
