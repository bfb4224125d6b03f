"""`export` in every format and `import`, as the command line does them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.exporters.registry import EXPORTERS
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.load import tiny_folder
from bitnet_train.packed.reader import read_manifest
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import ImportFacts
from bitnet_train.runtime.native.model import NativeModel
from tests.fixtures.small_runs import small

SETTINGS = {  # 7 is no special token: nothing but this file says that a text ends there
    "bos_token_id": 0,
    "eos_token_id": [0, 2, 7],
    "pad_token_id": 0,
    "do_sample": True,
    "temperature": 0.75,
    "top_k": 20,
    "top_p": 0.875,
    "repetition_penalty": 1.25,
}
UMASK = 0o027


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was trained and merged: one ternary scale a tensor, which every format can hold.

    Its original has generation settings of its own, and it was written under `UMASK`.
    """
    folder = tmp_path_factory.mktemp("delivery")
    source, run_dir = Path(shutil.copytree(tiny_folder(), folder / "source")), folder / "run"
    (source / "generation_config.json").write_text(json.dumps(SETTINGS))
    words = [*small(run_dir), f"model.source={source}"]
    with umask(UMASK):
        assert main(["train", "quickstart", "--quiet", "weight=ternary_tensor", *words]) == 0
        assert main(["merge", str(run_dir), "--quiet"]) == 0
    return run_dir


@pytest.fixture(scope="module")
def exported(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run like `merged` with an export in every format."""
    run_dir = Path(shutil.copytree(merged, tmp_path_factory.mktemp("exported") / "run"))
    with umask(UMASK):
        assert [name for name in EXPORTERS if main(["export", str(run_dir), f"export={name}", "--quiet"]) != 0] == []
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("name", ["merged", "artefact", "exports/hf_bitnet", "exports/plain"])
def test_the_generation_settings_of_the_original_are_in_every_folder_of_a_model(exported: Path, name: str) -> None:
    written = json.loads((exported / name / "generation_config.json").read_text())
    assert {key: value for key, value in written.items() if key in SETTINGS} == SETTINGS


@pytest.mark.slow
def test_the_native_engine_ends_where_the_original_does(exported: Path) -> None:
    assert NativeModel.load(exported / "artefact").stop_ids == (0, 2, 7)


@pytest.mark.slow
def test_a_gguf_says_every_end_of_a_text_and_how_to_sample(exported: Path) -> None:
    keys = open_gguf(next((exported / "exports").glob("*/*.gguf"))).metadata
    assert [keys[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")] == [0, 2, 7]
    names = ("temp", "top_k", "top_p", "penalty_repeat")
    assert [keys[f"general.sampling.{name}"] for name in names] == [0.75, 20, 0.875, 1.25]


@pytest.mark.slow
def test_a_header_for_firmware_says_every_end_of_a_text(exported: Path) -> None:
    header = (exported / "exports" / "c_array" / "model.h").read_text()
    assert "#define BITNET_NUM_END_TOKENS 3u\n" in header
    assert "bitnet_end_tokens[] = {0u, 2u, 7u};" in header


@pytest.mark.slow
def test_a_gguf_brings_the_generation_settings_back(exported: Path, tmp_path: Path) -> None:
    assert main(["import", str(next((exported / "exports").glob("*/*.gguf"))), f"run.dir={tmp_path}", "--quiet"]) == 0
    written = json.loads((tmp_path / "artefact" / "generation_config.json").read_text())
    assert {key: value for key, value in written.items() if key in SETTINGS} == SETTINGS
    facts = RunDirectory(tmp_path).kept(ImportFacts)
    assert facts is not None
    assert facts.sizes == read_manifest(tmp_path / "artefact").sizes


@pytest.mark.slow
def test_every_file_and_folder_that_is_written_follows_the_umask(exported: Path) -> None:
    paths = [path for part in ("merged", "artefact", "exports", "facts", "checkpoints", "cache") for path in
             (exported / part, *(exported / part).rglob("*"))]  # fmt: skip
    wrong = {
        str(path.relative_to(exported)): oct(path.stat().st_mode & 0o777)
        for path in paths
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~UMASK
    }
    assert len(paths) > 30
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
def test_a_run_is_packed_first_and_each_export_lies_in_it(merged: Path, tmp_path: Path, name: str) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), f"export={name}", "--quiet"]) == 0
    assert (run_dir / "artefact" / "manifest.json").is_file()
    folder = run_dir / "exports" / ("gguf-auto" if name == "gguf" else name)
    assert json.loads((folder / "export.json").read_text())["format"] == name
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    facts = json.loads((run_dir / "facts" / "export.json").read_text())
    assert facts["written"]["num_bytes"] == sum(
        path.stat().st_size for path in folder.iterdir() if path.name != "export.json"
    )


@pytest.mark.parametrize("verb", ["run", "train"])
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["export=hf_bitnet"], ["`export.format=hf_bitnet`", "Train with `weight=binary_tensor`"]),
        (["export.also=[plain,hf_bitnet]"], ["`export.also=hf_bitnet`", "Train with `weight=binary_tensor`"]),
        (["export.also=[gguf]", "weight.granularity=group", "group_size=32"], ["`export.also=gguf`", "multiple of 64"]),
        (["export=gguf_adapter"], ["`adapter.kind=lora_outside`"]),
        (["weight.tables=exact", "export.head=int8"], ["ask for two tables"]),
    ],
    ids=str,
)
def test_a_format_that_cannot_hold_the_model_is_refused_before_training_with_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, words: list[str], parts: list[str]
) -> None:
    assert main([verb, "quickstart", "--quiet", *small(tmp_path / "run"), *words]) == 2
    told = capsys.readouterr().err
    assert [part for part in parts if part not in told] == []
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not {path.stem for path in (tmp_path / "run" / "facts").iterdir()} & {"convert", "train"}


@pytest.mark.slow
def test_a_dry_run_refuses_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "--dry-run", "--quiet", *small(tmp_path / "run"), "export=hf_bitnet"]) == 2
    assert "Train with `weight=binary_tensor`" in capsys.readouterr().err


@pytest.mark.slow
def test_further_formats_are_written_after_the_packed_folder_and_validated_like_it(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export.also=[gguf,hf_bitnet,gguf]", "--quiet"]) == 0
    facts = json.loads((run_dir / "facts" / "export.json").read_text())
    assert [written["format"] for written in facts["also"]] == ["gguf", "hf_bitnet"]
    assert {path.name for path in (run_dir / "exports").iterdir()} == {"gguf-auto", "hf_bitnet"}
    quick = ["validate.num_prompts=1", "validate.new_tokens=1", "validate.num_tokens=64", "validate.native_tokens=1"]
    assert main(["validate", str(run_dir), "--json", *quick]) == 0
    assert [export["passed"] for export in json.loads(capsys.readouterr().out)["exports"]] == [True, True]


@pytest.mark.slow
def test_validate_holds_every_export_of_a_run_against_its_packed_folder(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export=gguf", "--quiet"]) == 0
    quick = ["validate.num_prompts=1", "validate.new_tokens=1", "validate.num_tokens=64", "validate.native_tokens=1"]
    assert main(["validate", str(run_dir), "--json", *quick]) == 0
    (export,) = json.loads(capsys.readouterr().out)["exports"]
    assert export["passed"]
    path = next((run_dir / "exports" / "gguf-auto").glob("*.gguf"))
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    assert main(["validate", str(run_dir), "--quiet", *quick]) == 1


@pytest.mark.slow
def test_a_packed_folder_alone_is_exported_beside_itself_or_where_asked(merged: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "--quiet"]) == 0
    packed = run_dir.rename(tmp_path / "old") / "artefact"
    packed = packed.rename(tmp_path / "model")
    assert main(["export", str(packed), "export=plain", "--quiet"]) == 0
    assert main(["validate", str(tmp_path / "model-plain"), f"validate.against={packed}", "--quiet"]) == 0
    assert main(["export", str(packed), "export=plain", f"export.out={tmp_path / 'there'}", "--quiet"]) == 0
    assert (tmp_path / "there" / "export.json").is_file()
    assert main(["export", str(packed), "export=plain", "--quiet"]) == 1, "the target is taken"
    assert main(["export", str(packed), "export=plain", "export.force=true", "--quiet"]) == 0


@pytest.mark.slow
def test_a_run_that_was_merged_again_is_packed_again_before_it_is_written(merged: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export=plain", "--quiet"]) == 0
    packed = run_dir / "artefact" / "manifest.json"
    first = packed.stat().st_mtime_ns
    again = ["export", str(run_dir), "export=plain", "--quiet"]
    assert main([*again, f"export.out={tmp_path / 'second'}"]) == 0
    assert packed.stat().st_mtime_ns == first, "nothing has changed since"
    assert main(["merge", str(run_dir), "--quiet"]) == 0
    assert main([*again, f"export.out={tmp_path / 'third'}"]) == 0
    assert packed.stat().st_mtime_ns > first
    assert main(["export", str(run_dir), "--quiet"]) == 1, "packing over an artefact is asked for by `export.force`"


@pytest.mark.slow
def test_packing_a_packed_folder_is_wrong_usage(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "--quiet"]) == 0
    assert main(["export", str(run_dir / "artefact"), "--quiet"]) == 2
    assert "packed already" in capsys.readouterr().err


def test_the_hub_is_named_owner_slash_name_or_nothing_is_done(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export.push_to_hub=mine", "--quiet"]) == 2
    assert "OWNER/NAME" in capsys.readouterr().err
    assert not (run_dir / "artefact").exists()


@pytest.mark.slow
def test_a_folder_that_could_not_be_uploaded_stays_and_the_error_says_how_to_go_on(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["export", str(run_dir), "export.push_to_hub=me/mine", "--quiet"]) == 1
    assert "not uploaded to me/mine" in capsys.readouterr().err
    assert (run_dir / "artefact" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_gguf_of_ours_comes_back_in_and_goes_out_the_same(merged: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export=gguf", "export.type=tq2_0", "--quiet"]) == 0
    first = next((run_dir / "exports").glob("*/*.gguf"))
    again = tmp_path / "again"
    assert main(["import", str(first), f"run.dir={again}", "--quiet"]) == 0
    assert main(["validate", str(first), f"validate.against={again / 'artefact'}", "--quiet"]) == 0
    assert main(["export", str(again), "export=gguf", "export.type=tq2_0", "--quiet"]) == 0
    second = next((again / "exports").glob("*/*.gguf"))
    assert main(["validate", str(second), f"validate.against={run_dir / 'artefact'}", "--quiet"]) == 0


@pytest.mark.slow
def test_importing_a_float_model_says_how_to_train_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "model.source=tiny", f"run.dir={tmp_path / 'run'}", "--quiet"]) == 2
    assert "bitnet-train run RECIPE model.source=tiny" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("of", ["gguf", "packed", "merged"])
def test_training_goes_on_from_a_model_that_is_one_bit_already(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], of: str
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    source = run_dir / {"merged": "merged", "packed": "artefact", "gguf": "exports/gguf-auto"}[of]
    if of != "merged":
        assert main(["export", str(run_dir), f"export={of}", "--quiet"]) == 0
    source = next(source.glob("*.gguf")) if of == "gguf" else source
    onwards = tmp_path / "onwards"
    assert main(["run", "quickstart", f"model.source={source}", *small(onwards, "loss=ce")[1:]]) == 0
    assert "1-bit already" in capsys.readouterr().out
    record = json.loads((onwards / "merged" / "conversion.json").read_text())
    assert record["weight"]["name"] == "ternary", "the file decides, not the recipe's binary groups"
    result = json.loads((onwards / "facts" / "run.json").read_text())
    assert result["weight"] == "ternary, one scale per tensor"
    scores = result["perplexity"]
    rounding = 1e-4 if of == "gguf" else 0.0  # a GGUF's tables are floats, so they are rounded to int8 on the way in
    assert scores["swapped"] == pytest.approx(scores["full_precision"], rel=rounding, abs=0.0), "nothing was swapped"


@pytest.mark.slow
def test_an_outside_adapter_goes_out_beside_the_base_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", "quickstart", "--quiet", "adapter=lora_outside", *small(run_dir)]) == 0
    assert main(["merge", str(run_dir), "--quiet"]) == 1
    for name in ("gguf", "gguf_adapter"):
        assert main(["export", str(run_dir), f"export={name}", "--quiet"]) == 0
    assert (run_dir / "exports" / "gguf_adapter" / "adapter.gguf").is_file()
    facts = json.loads((run_dir / "facts" / "export.json").read_text())["written"]["facts"]
    assert facts["num_layers"] == 28
    quick = ["validate.num_prompts=1", "validate.new_tokens=1", "validate.num_tokens=64", "validate.native_tokens=1"]
    assert main(["validate", str(run_dir), "--quiet", *quick]) == 0


@pytest.mark.slow
def test_an_adapter_that_was_merged_has_no_file_of_its_own(
    merged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(merged, tmp_path / "run"))
    assert main(["export", str(run_dir), "export=gguf_adapter", "--quiet"]) == 2
    assert "adapter.kind=lora_outside" in capsys.readouterr().err
