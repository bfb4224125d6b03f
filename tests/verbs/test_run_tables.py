"""A run whose embedding and head are tables of few bits, from training to every verb that reads its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitnet_train.__main__ import main
from bitnet_train.importers.load import load_pretrained
from bitnet_train.packed import read_manifest
from bitnet_train.quant.stored import rounded
from tests.fixtures.small_runs import SMALL, facts_of

pytestmark = pytest.mark.slow  # one run for all of them
WORDS = [*SMALL, "weight.tables=int4", "trainer.save_every_steps=1", "export.also=[gguf]"]
WORDS += ["adapter.train_embeddings=true", "optimizer.lr=0.02"]  # so that some code of a table changes


def run(run_dir: Path, *words: str) -> int:
    return main(["run", "quickstart", "--quiet", f"run.dir={run_dir}", *WORDS, *words])


def merged(run_dir: Path) -> dict[str, torch.Tensor]:
    assert main(["merge", str(run_dir), "--quiet"]) == 0
    return load_file(run_dir / "merged" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("tables") / "run"
    assert run(run_dir) == 0
    return run_dir


def test_the_folder_is_proven_at_tolerance_0_and_holds_the_table_in_4_bits(finished: Path) -> None:
    assert facts_of(finished, "validate")["passed"]
    assert [table.bits for table in read_manifest(finished / "artefact").tables] == [4, 4]
    assert json.loads((finished / "merged" / "conversion.json").read_text())["stored_tables"] == "int4"


def test_the_table_trained_and_holds_values_of_4_bits(finished: Path) -> None:
    table = load_file(finished / "merged" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(table, rounded(table, "int4"))
    assert not torch.equal(table, rounded(load_pretrained("tiny").model.get_output_embeddings().weight, "int4"))


def test_both_engines_write_the_same_text(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for engine in ("native", "hf"):
        words = [
            "generate.prompt='import os'",
            "generate.max_new_tokens=8",
            "generate.temperature=0",
            f"generate.engine={engine}",
        ]
        assert main(["generate", str(finished / "artefact"), "--json", *words]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0]["text"] == said[1]["text"] != ""


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(finished: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(finished, cut)
    shutil.rmtree(max((cut / "checkpoints").glob("step-*")))
    (cut / "config.yaml").write_text((finished / "config.yaml").read_text().replace(str(finished), str(cut)))
    assert main(["train", str(cut), "--quiet"]) == 0
    whole, resumed = merged(finished), merged(cut)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_other_tables_do_not_continue_it(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(finished), "weight.tables=int8"]) == 2
    assert "weight.tables: int4 -> int8" in capsys.readouterr().err
