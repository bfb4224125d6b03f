"""The whole way, small: every recipe from the bundled model to a proven artefact, as the command line does it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bitnet_train import assembly
from bitnet_train.__main__ import _run_stage, main
from bitnet_train.cli.arguments import read_call
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import recipes
from bitnet_train.kernels.isa import available_isas
from bitnet_train.model.load import tiny_folder
from bitnet_train.summary import render

NOT_PACKABLE = {"baselines/onebit"}  # it trains a scale per input; tests/test_ablate.py trains and measures it
CHATS = [
    {"messages": [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": f"It is {i + 1}."}]}
    for i in range(40)
]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return path


def small(run_dir: Path, *further: str) -> list[str]:
    return ["model.source=tiny", "debug=tiny", "logger=none", f"run.dir={run_dir}", "trainer.num_threads=1", *further]


def facts(run_dir: Path, stage: str) -> dict:
    return json.loads((run_dir / "facts" / f"{stage}.json").read_text())


@pytest.mark.parametrize("name", [name for name in recipes() if name not in NOT_PACKABLE])
def test_a_recipe_goes_the_whole_way_and_proves_it(name: str, tmp_path: Path, chats: Path) -> None:
    run_dir = tmp_path / "run"
    further = [f"data.path={chats}"] if name == "lora_sft_chat" else []
    assert main(["run", name, "--quiet", *small(run_dir, *further)]) == 0
    result = facts(run_dir, "run")
    assert result["passed"]
    assert result["train"]["steps"] == 2
    manifest = json.loads((run_dir / "artefact" / "manifest.json").read_text())
    assert len(manifest["layers"]) == 28, "four blocks of seven linears"
    rounded = not name.startswith("baselines/")  # those are as others train them
    tables = [table["name"] for table in manifest.get("tables", [])]
    assert tables == (["model.embed_tokens", "lm_head"] if rounded else [])
    wide = {name for name, tensor in manifest["tensors"].items() if tensor["dtype"] == "float32"}
    assert not rounded or all(name.endswith("inv_freq") for name in wide), "all else is narrow"
    ratio = result["size"]["fp16_bytes"] / result["size"]["packed_bytes"]
    assert ratio == (8 if compose(name, further).config.weight.name == "ternary" else 16)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    assert main(["run", "quickstart", "--quiet", *small(run_dir)]) == 0
    return run_dir


def test_a_run_says_how_large_its_folder_is_beside_the_original(finished: Path) -> None:
    result = facts(finished, "run")
    size = result["size"]
    assert size["folder_bytes"] == sum(path.stat().st_size for path in (finished / "artefact").iterdir())
    assert size["original_bytes"] == (tiny_folder() / "model.safetensors").stat().st_size > size["folder_bytes"]
    console = Console(record=True, width=120)
    console.print(render(result))
    row = next(line for line in console.export_text().splitlines() if "whole folder" in line)
    assert f"{size['original_bytes'] / 1e6:.2f} MB" in row
    assert f"{size['folder_bytes'] / 1e6:.2f} MB" in row
    larger = {**result, "size": {**size, "original_bytes": size["folder_bytes"]}}
    console.print(render(larger))
    assert "is not smaller than the original" in console.export_text()


def test_a_result_of_an_older_version_is_still_shown(finished: Path) -> None:
    result = facts(finished, "run")
    size = {name: result["size"][name] for name in ("packed_bytes", "scale_bytes", "fp16_bytes", "total_bytes")}
    console = Console(record=True, width=120)
    console.print(render({**result, "size": size}))
    assert f"{size['total_bytes'] / 1e6:.2f} MB" in console.export_text()


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


def test_later_verbs_work_on_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(finished), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [level["passed"] for level in report["levels"]] == [True] * 6
    assert report["compared_with"] == "the trained model"
    assert main(["evaluate", str(finished), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["nats"] == facts(finished, "run")["perplexity"]["trained_nats"]
    assert main(["generate", str(finished / "artefact"), "generate.max_new_tokens=5", "--json"]) == 0
    assert 1 <= len(json.loads(capsys.readouterr().out)["token_ids"]) <= 5


def test_bench_measures_every_contender_and_keeps_rows(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench.prompt_tokens=8", "bench.new_tokens=4", "bench.repeats=1", "bench.threads=[1]"]
    words += [f"bench.isas=[{available_isas()[0]}]", "bench.against=tiny"]
    assert main(["bench", str(finished), "--json", *words]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["rows"] == facts(finished, "bench")["rows"]
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


def test_dry_run_shows_the_mask_and_leaves_nothing_behind(
    tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "lora_sft_chat", "--dry-run", "--json", *small(tmp_path / "run", f"data.path={chats}")]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    trained = "".join(part["text"] for part in told["first_row"] if part["trained"])
    assert trained.startswith("It is ")
    assert "+ 1?" not in trained
    assert not (tmp_path / "run").exists()


def test_train_ends_with_its_figures_the_run_directory_and_the_next_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", "quickstart", *small(run_dir)]) == 0
    *_, figures, following = capsys.readouterr().out.splitlines()
    metrics = facts(run_dir, "train")["metrics"]
    assert figures.startswith("Trained 2 steps, ")
    assert f"perplexity {metrics['val_perplexity']:.4g}, KL {metrics['val_kl']:.4g}" in figures
    assert figures.endswith(f"Run directory: {run_dir}")
    assert following == f"Next: bitnet-train merge {run_dir}"


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
    assert int(told[1]) <= len(CHATS)
    assert 0 < int(told[3]) < 100
    assert 0 < int(told[4]) < 100


def test_a_dry_run_tells_all_that_needs_no_weights_before_it_opens_them(
    tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "lora_sft_chat", "--dry-run", *small(tmp_path / "run", f"data.path={chats}")]
    assert main(words) == 0
    told, _, timed = capsys.readouterr().out.partition("All above needed no weights.")
    steps, memory = re.search(r"Length: (.*) tokens", told)[1], re.search(r"; (\S+ GB) and", told)[1]  # type: ignore[index]
    assert told.startswith("Dry run of lora_sft_chat, model tiny")
    for figure in ("Rows:", "Packed:", "[[It is", "layers become 1-bit", "parameters train (", f"{memory} and"):
        assert figure in told
    assert f"Budget: {steps} tokens" in timed, "the outline has the steps of the model"
    assert f"{memory} and" in timed, "and its memory"

    def no_weights(source: str) -> None:
        raise AssertionError(f"the weights of {source} are opened")

    monkeypatch.setattr(assembly, "load_pretrained", no_weights)
    with pytest.raises(AssertionError, match="are opened"):
        _run_stage(read_call(words))
    assert "Length: " in capsys.readouterr().out, "nothing was read before they were known"


def test_a_dry_run_on_text_that_the_model_writes_says_why_its_weights_come_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=self", "data.self_corpus.documents=40", "data.min_tokens=2"]
    assert main(["train", "quickstart", "--dry-run", *small(tmp_path / "run", *words)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Opening the weights of tiny first (`data.source=self`") < printed.index("Rows:")
    assert "All above needed no weights" not in printed


def test_an_outside_adapter_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", *small(tmp_path / "run", "adapter=lora_outside")]) == 2
    assert "lora_outside" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(how: signal.Signals, tmp_path: Path) -> None:
    length = ["trainer.max_steps=40", "trainer.save_every_steps=3", "trainer.validate_every_steps=5"]
    words = ["train", "smollm2_binary_lora", "--quiet"]
    assert main([*words, *small(tmp_path / "whole", *length)]) == 0
    cut = [sys.executable, "-m", "bitnet_train", *words, *small(tmp_path / "cut", *length)]
    process = subprocess.Popen(cut)
    _wait_for(tmp_path / "cut" / "checkpoints" / "step-000003")
    process.send_signal(how)
    code = process.wait(timeout=120)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    assert main(["train", str(tmp_path / "cut"), "--quiet"]) == 0
    for run in ("whole", "cut"):
        assert main(["merge", str(tmp_path / run), "--quiet"]) == 0
    whole, resumed = (load_file(tmp_path / run / "merged" / "model.safetensors") for run in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.is_dir():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
