"""`merge` says which step it takes, and so does what is packed from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.__main__ import main
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from tests.fixtures.small_runs import facts_of, small

EARLIER, LAST = 1, 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "words.txt").write_text("The quick brown fox jumps over the lazy dog, which says nothing at all. " * 60)
    words = ["data=files", f"data.path={folder / 'words.txt'}", "trainer.save_every_steps=1"]
    assert main(["train", "quickstart", "--quiet", *small(folder / "run", *words)]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def claimed(run: Path) -> dict[str, Any]:
    assert main(["merge", str(run), "--quiet"]) == 0
    assert main(["export", str(run), "--quiet"]) == 0
    return json.loads((run / "artefact" / "manifest.json").read_text())["facts"]["training"]


def cut(folder: Path) -> None:
    state = folder / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut, shutil.rmtree], ids=["damaged", "lost"])
def test_an_earlier_step_is_said_and_the_artefact_claims_the_step_that_it_holds(
    run: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run / "checkpoints" / f"step-{LAST:06d}")
    progress = AtomicCheckpointIO().load_checkpoint(run / "checkpoints" / f"step-{EARLIER:06d}")["progress"]
    training = claimed(run)
    assert (training["steps"], training["tokens"]) == (EARLIER, progress["tokens"])
    assert training["metrics"]["loss"] == progress["metrics"]["loss"]
    said = " ".join(capsys.readouterr().err.split())
    assert f"was trained to step {LAST}, and the newest checkpoint that can be used is of step {EARLIER}" in said
    assert ("Skipping a checkpoint" in said) == (damage is cut)


@pytest.mark.slow
def test_the_last_step_is_claimed_with_the_figures_of_its_validation(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = claimed(run)
    assert (training["steps"], training["metrics"]) == (LAST, facts_of(run, "train")["metrics"])
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_without_a_checkpoint_that_can_be_used_nothing_is_merged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        cut(folder)
    assert main(["merge", str(run), "--quiet"]) == 1
    assert "None of the 2 checkpoints" in capsys.readouterr().err
    assert not (run / "merged").exists()
