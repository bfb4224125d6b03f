from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.errors import ConversionError
from bitnet_train.importers.found import find_model
from bitnet_train.importers.load import load_mapped, load_pretrained, source_bytes
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.converted import ConversionRecord, save_converted
from bitnet_train.packed import export_packed

MARKS = {
    "run": {"config.yaml": "recipe: mine\n"},
    "packed": {"manifest.json": '{"format": "planes_v1"}', "config.json": "{}"},
    "merged": {"conversion.json": "{}", "config.json": "{}"},
    "export": {"export.json": "{}", "config.json": "{}"},
    "adapter": {"adapter_config.json": "{}"},
    "folder": {"config.json": "{}", "manifest.json": '{"name": "web app"}'},
    "empty": {"notes.txt": "nothing"},
}


def make(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", MARKS)
def test_a_folder_is_known_by_the_files_in_it(kind: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "it", MARKS[kind])
    assert find_model(str(folder)) == find_model(f"{folder}/")
    assert (find_model(str(folder)).kind, find_model(str(folder)).path) == (kind, folder)


@pytest.mark.parametrize("manifest", ["{", "[]", '{"format": 3}', "{}"])
def test_a_packed_folder_with_a_damaged_manifest_is_still_one(manifest: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "it", {"manifest.json": manifest, "config.json": "{}", "weights.safetensors": ""})
    assert find_model(str(folder)).kind == "packed"


def test_words_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "blob").write_bytes(b"GGUF....")
    words = {"tiny": "tiny", "owner/name": "hub", "hub:owner/name": "hub", "./gone": "missing", "gone.gguf": "missing"}
    words |= {str(tmp_path / "notes.txt"): "file", str(tmp_path / "blob"): "gguf"}
    assert {word: find_model(word).kind for word in words} == words


@pytest.fixture
def trained_run(make_trained, byte_tokenizer, tmp_path: Path) -> Path:
    """Return a run directory with a merged and a packed model."""
    run, model = make(tmp_path / "run", MARKS["run"]), make_trained()
    record = ConversionRecord(tuple(bit_layers(model)))
    save_converted(model, record, run / "merged", byte_tokenizer)
    export_packed(model, byte_tokenizer, run / "artefact", {})
    return run


@pytest.mark.parametrize("place", ["", "merged", "artefact"])
def test_a_run_a_merged_and_a_packed_folder_give_the_same_1_bit_model(place: str, trained_run: Path) -> None:
    loaded, merged = load_pretrained(str(trained_run / place)), load_pretrained(str(trained_run / "merged"))
    assert loaded.source == str(trained_run / place)
    assert loaded.record is not None
    assert f"{len(loaded.record.layers)} " in loaded.description or "1-bit" in loaded.description
    ours, theirs = bit_layers(loaded.model), bit_layers(merged.model)
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        for one, other in zip(layer.quantized(), theirs[name].quantized(), strict=True):
            assert one.equal(other), name


def test_a_run_that_was_not_merged_gives_what_it_packed_and_before_that_an_error(trained_run: Path) -> None:
    (trained_run / "merged").rename(trained_run / "elsewhere")
    assert load_pretrained(str(trained_run)).record is not None
    (trained_run / "artefact").rename(trained_run / "away")
    with pytest.raises(ConversionError, match=r"no merged or packed model yet. `bitnet-train merge "):
        load_pretrained(str(trained_run))


def test_the_size_of_a_run_is_that_of_the_model_it_gives(trained_run: Path) -> None:
    assert source_bytes(str(trained_run)) == (trained_run / "merged" / "model.safetensors").stat().st_size
    (trained_run / "merged").rename(trained_run / "elsewhere")
    assert source_bytes(str(trained_run)) == (trained_run / "artefact" / "weights.safetensors").stat().st_size


@pytest.mark.parametrize("place", ["", "merged", "artefact"])
def test_what_is_1_bit_already_is_not_opened_as_a_float_model_in_its_files(place: str, trained_run: Path) -> None:
    with pytest.raises(ConversionError, match="is 1-bit already"):
        load_mapped(str(trained_run / place))


def test_a_model_without_a_tokenizer_is_refused(make_trained, tmp_path: Path) -> None:
    model = make_trained()
    save_converted(model, ConversionRecord(tuple(bit_layers(model))), tmp_path / "merged")
    with pytest.raises(ConversionError, match="has no tokenizer"):
        load_pretrained(str(tmp_path / "merged"))


def test_an_export_that_is_no_folder_of_transformers_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "gguf", {"export.json": json.dumps({"format": "gguf"}), "model.gguf": "GGUF"})
    with pytest.raises(ConversionError, match=r"has no config.json, so it holds no model. Allowed"):
        load_pretrained(str(folder))


@pytest.mark.parametrize(
    "word", ["x" * 5000, "a/b/" + "x" * 300, "a\0b", "~nobody-is-called-so/x", "x" * 300 + ".gguf"]
)
def test_a_word_that_no_file_system_takes_names_nothing(word):
    assert find_model(word).kind in ("missing", "hub")
    assert source_bytes(word) is None
