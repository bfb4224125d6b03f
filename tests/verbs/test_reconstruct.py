"""The verb `reconstruct`: from a folder to a packed model that proves itself, and what it refuses before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from tests.fixtures.small_runs import SMALL, facts_of

SHORT = [*SMALL, "blockwise.steps=8"]
QUICK = ["validate.num_prompts=2", "validate.new_tokens=2", "validate.num_tokens=64", "validate.native_tokens=2"]


@pytest.mark.slow
def test_it_is_exported_proven_and_trained_on_from(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert main(["reconstruct", "quickstart", "--quiet", f"run.dir={run_dir}", *SHORT]) == 0
    facts = facts_of(run_dir, "reconstruct")
    assert len(facts["blocks"]) == 4
    assert all(block["after"] < block["before"] for block in facts["blocks"])
    assert sorted(path.name for path in (run_dir / "cache").iterdir() if path.is_dir()) == [], "no blocks are left"
    assert main(["export", str(run_dir), "--quiet"]) == 0
    assert main(["validate", str(run_dir), "--quiet", *QUICK]) == 0
    assert facts_of(run_dir, "validate")["passed"]
    onward = [f"run.dir={tmp_path / 'onward'}", *SMALL[1:], f"model.source={run_dir / 'merged'}"]
    assert main(["train", "quickstart", "--quiet", *onward]) == 0


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert main(["reconstruct", "quickstart", "--dry-run", f"run.dir={run_dir}", *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "28 of 30 layers become 1-bit" in printed
    assert "every block 8 steps" in printed
    assert not run_dir.exists()


@pytest.mark.parametrize("word", ["init.equalise=true", "weight.sub_norm=true"])
def test_what_needs_the_whole_model_is_refused(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert main(["reconstruct", "quickstart", f"run.dir={run_dir}", *SHORT, word]) == 2
    assert "holds one block of it at a time" in capsys.readouterr().err
    assert not run_dir.exists()


def test_a_gguf_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    words = [f"run.dir={tmp_path / 'run'}", *SMALL[1:], f"model.source={tmp_path / 'model.gguf'}"]
    assert main(["reconstruct", "quickstart", *words]) == 1
    assert "train with `blockwise=on`" in capsys.readouterr().err
