"""`weight.budget_mb` on the command line: what is chosen, kept, found again by later verbs, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.packed.reader import read_manifest
from tests.fixtures.small_runs import SMALL, facts_of

QUICK = ["validate.num_prompts=2", "validate.new_tokens=2", "validate.num_tokens=64", "validate.native_tokens=2"]
SCAN = ["sensitivity.max_tokens=64"]


@pytest.mark.slow
def test_a_run_keeps_within_its_budget_and_every_verb_finds_the_same_planes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, budget = tmp_path / "run", 2.4
    words = [f"weight.budget_mb={budget}", *SCAN, *SMALL, *QUICK]
    assert main(["run", "quickstart", f"run.dir={run_dir}", *words]) == 0
    printed = capsys.readouterr().out
    assert "Planes for 2.4 MB" in printed
    planned, folder = facts_of(run_dir, "planes"), run_dir / "artefact"
    written = sum(path.stat().st_size for path in folder.iterdir())
    assert written <= budget * 1e6
    assert 0 <= planned["folder_bytes"] - written < 24_000, "room for the card, and never too little"
    stored = {layer.name: layer.scheme.planes for layer in read_manifest(folder).layers}
    assert stored == planned["planes"]
    assert len(set(stored.values())) > 1, "a budget between two numbers of planes takes both"
    assert facts_of(run_dir, "validate")["passed"]


@pytest.mark.slow
def test_the_same_settings_choose_the_same_planes_and_layers_with_entries_of_their_own_are_left(tmp_path: Path) -> None:
    kept = "weight.overrides=[{pattern:down_proj,name:ternary}]"
    chosen = []
    for name in ("first", "second"):
        words = [f"run.dir={tmp_path / name}", "weight.budget_mb=2.4", kept, *SCAN, *SMALL]
        assert main(["convert", "quickstart", "--quiet", *words]) == 0
        chosen.append(facts_of(tmp_path / name, "planes")["planes"])
    assert chosen[0] == chosen[1]
    assert not any("down_proj" in name for name in chosen[0])
    record = json.loads((tmp_path / "first" / "facts" / "convert.json").read_text())["record"]
    assert "ternary" in json.dumps(record["mixed"])


@pytest.mark.slow
def test_a_run_that_is_continued_keeps_its_planes_even_if_what_asked_for_them_is_written_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = ["weight.budget_mb=2.4", "trainer.max_steps=2", *SCAN, *SMALL]
    assert main(["train", "quickstart", f"run.dir={run_dir}", *words]) == 0
    assert "Planes for" in capsys.readouterr().out
    kept = facts_of(run_dir, "planes")
    file = run_dir / "facts" / "planes.json"
    file.write_text(json.dumps({**kept, "asked": {**kept["asked"], "weight": "as an older version says it"}}))
    assert main(["train", str(run_dir), "trainer.max_steps=4"]) == 0
    assert "Planes for" not in capsys.readouterr().out
    assert facts_of(run_dir, "planes")["planes"] == kept["planes"]


def test_a_budget_below_one_plane_everywhere_is_refused_with_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "quickstart", f"run.dir={tmp_path / 'run'}", "weight.budget_mb=0.5", *SMALL]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "`weight.budget_mb=0.5` is below the" in told
    assert "MB of this model with one plane in every layer" in told


def test_a_dry_run_says_that_planes_are_still_to_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"run.dir={tmp_path / 'run'}", "weight.budget_mb=2.4", *SMALL, "--dry-run"]
    assert main(["train", "quickstart", *words]) == 0
    assert "chosen when the run starts, by trials" in " ".join(capsys.readouterr().out.split())
