"""What a finished run says of itself, and every verb that reads one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from bitnet_train.__main__ import main
from bitnet_train.importers.load import tiny_folder
from bitnet_train.kernels.isa import available_isas
from bitnet_train.run.result import RunFacts
from bitnet_train.run.summary import render
from tests.fixtures.small_runs import facts_of

pytestmark = pytest.mark.slow  # one run for all of them


def test_a_run_says_how_large_its_folder_is_beside_the_original(finished: Path) -> None:
    result = facts_of(finished, "run")
    size = result["size"]
    assert size["folder_bytes"] == sum(path.stat().st_size for path in (finished / "artefact").iterdir())
    assert size["original_bytes"] == (tiny_folder() / "model.safetensors").stat().st_size > size["folder_bytes"]
    console = Console(record=True, width=120)
    console.print(render(RunFacts.from_dict(result)))
    row = next(line for line in console.export_text().splitlines() if "whole folder" in line)
    assert f"{size['original_bytes'] / 1e6:.2f} MB" in row
    assert f"{size['folder_bytes'] / 1e6:.2f} MB" in row
    larger = {**result, "size": {**size, "original_bytes": size["folder_bytes"]}}
    console.print(render(RunFacts.from_dict(larger)))
    assert "is not smaller than the original" in console.export_text()


def test_a_result_of_an_older_version_is_still_shown(finished: Path) -> None:
    result = facts_of(finished, "run")
    size = {name: result["size"][name] for name in ("packed_bytes", "scale_bytes", "fp16_bytes", "total_bytes")}
    console = Console(record=True, width=120)
    console.print(render(RunFacts.from_dict({**result, "size": size})))
    assert f"{size['total_bytes'] / 1e6:.2f} MB" in console.export_text()


def test_later_verbs_work_on_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(finished), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [level["passed"] for level in report["levels"]] == [True] * 6
    assert report["compared_with"] == "the trained model"
    assert main(["evaluate", str(finished), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["nats"] == facts_of(finished, "run")["perplexity"]["trained_nats"]
    assert main(["generate", str(finished / "artefact"), "generate.max_new_tokens=5", "--json"]) == 0
    assert 1 <= len(json.loads(capsys.readouterr().out)["token_ids"]) <= 5


def test_bench_measures_every_contender_and_keeps_rows(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench.prompt_tokens=8", "bench.new_tokens=4", "bench.repeats=1", "bench.threads=[1]"]
    words += [f"bench.isas=[{available_isas()[0]}]", "bench.against=tiny"]
    assert main(["bench", str(finished), "--json", *words]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["rows"] == facts_of(finished, "bench")["rows"]
    assert told["rows"][-1]["runtime"] == "float"
    assert {row["runtime"] for row in told["rows"]} >= {"modules", "float"}
    assert all(row["decode_tokens_per_s"] > 0 for row in told["rows"])
    assert "prefill" in captured.err


def test_an_artefact_alone_is_compared_with_the_reference(finished: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    (finished / "artefact").rename(alone)
    try:
        assert main(["validate", str(alone), "--quiet", "validate.num_prompts=1"]) == 0
    finally:
        alone.rename(finished / "artefact")


def test_a_flipped_bit_makes_validate_exit_1_and_name_the_layer(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished / "artefact" / "weights.safetensors"
    whole = weights.read_bytes()
    at = len(whole) // 2
    weights.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    try:
        assert main(["validate", str(finished), "--json"]) == 1
    finally:
        weights.write_bytes(whole)
    failure = json.loads(capsys.readouterr().out)["levels"][0]["first_failure"]
    assert "weights.safetensors" in failure
