"""The verb `sensitivity`, and a mixed model all the way: trained, merged, packed, proven, written, opened again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.packed.reader import read_manifest
from tests.fixtures.small_runs import SMALL

MIX = "weight.overrides=[{pattern:down_proj,name:ternary,granularity:row},{role:head,group_size:64}]"


@pytest.mark.slow
def test_the_scan_ends_with_overrides_that_the_next_command_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = [*SMALL, "sensitivity.max_tokens=64", "sensitivity.extra_share=0.5"]
    assert main(["sensitivity", "quickstart", f"run.dir={run_dir}", *words]) == 0
    printed = capsys.readouterr().out
    facts = json.loads((run_dir / "facts" / "sensitivity.json").read_text())
    suggestion = facts["suggestion"]
    assert suggestion["word"] in printed
    assert "self_attn.q_proj" in printed
    assert 0 < suggestion["extra_bytes"] <= suggestion["budget_bytes"]
    assert suggestion["everything"]["kl"] != facts["everything"]["kl"]
    assert (
        main(["convert", "quickstart", "--quiet", f"run.dir={tmp_path / 'next'}", *SMALL, suggestion["word"][1:-1]])
        == 0
    )
    record = json.loads((tmp_path / "next" / "facts" / "convert.json").read_text())["record"]
    assert record.get("mixed") or any("keep" in entry for entry in suggestion["overrides"])


@pytest.mark.slow
def test_a_model_that_is_1_bit_already_has_nothing_to_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", "quickstart", "--quiet", f"run.dir={run_dir}", *SMALL]) == 0
    assert main(["merge", str(run_dir), "--quiet"]) == 0
    assert main(["export", str(run_dir), "--quiet"]) == 0
    packed = f"model.source={run_dir / 'artefact'}"
    assert main(["sensitivity", "quickstart", f"run.dir={tmp_path / 'scan'}", *SMALL[1:], packed]) == 2
    assert "is 1-bit already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mix_goes_the_whole_way_and_is_proven_on_every_level(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    roles = "model.roles=[attention,mlp,head,embedding]"
    quick = ["validate.num_prompts=2", "validate.new_tokens=2", "validate.num_tokens=64", "validate.native_tokens=2"]
    assert main(["run", "quickstart", "--quiet", f"run.dir={run_dir}", *SMALL, roles, MIX, *quick]) == 0
    facts = json.loads((run_dir / "facts" / "validate.json").read_text())
    assert facts["passed"]
    schemes = {layer.name: layer.scheme.describe() for layer in read_manifest(run_dir / "artefact").layers}
    assert schemes["model.layers.0.mlp.down_proj"] == "ternary per row"
    assert schemes["model.layers.0.self_attn.q_proj"] == schemes["model.embed_tokens"] == "binary per group 128"
    assert schemes["lm_head"] == "binary per group 64"
    assert main(["export", str(run_dir), "export=gguf", "--quiet"]) == 0
    assert main(["validate", str(run_dir), "--quiet", *quick]) == 0
    source = f"model.source={run_dir / 'artefact'}"
    again = ["convert", "quickstart", "--quiet", f"run.dir={tmp_path / 'again'}", *SMALL[1:], source]
    assert main(again) == 0
    record = json.loads((tmp_path / "again" / "facts" / "convert.json").read_text())["record"]
    assert record["mixed"]["model.layers.0.mlp.down_proj"]["name"] == "ternary"
