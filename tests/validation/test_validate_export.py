from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitnet_train.errors import FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.record import ExportRecord, files_of, read_record
from bitnet_train.exporters.registry import EXPORTERS, export_as
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.packed import export_packed
from bitnet_train.packed.names import EXPORT_NAME
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.validation.validate_export import format_of, validate_export


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Return a packed folder that every format can hold: the bundled model, one ternary scale a tensor."""
    loaded = load_pretrained("tiny")
    convert(loaded.model, weight=WeightScheme("ternary", "tensor"))
    folder = tmp_path_factory.mktemp("packed") / "folder"
    export_packed(loaded.model, loaded.tokenizer, folder, {})
    return folder


@pytest.fixture(scope="module")
def exports(packed, tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    for name in EXPORTERS:
        export_as(name, packed, root / name)
    return root


def reseal(folder):
    """Make the record true again after a file was changed: only the weights can then tell."""
    old = read_record(folder)
    (folder / EXPORT_NAME).unlink()
    record = ExportRecord(old.format, old.options, old.source, old.created_by, files_of(folder), old.facts)
    (folder / EXPORT_NAME).write_text(record.to_json())


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_format_is_valid_against_the_folder_it_was_written_from(packed, exports, name):
    report = validate_export(exports / name, against=packed)
    assert report.passed, report.first_failure
    assert [level.name for level in report.levels] == ["files", "weights"]
    assert report.levels[1].figures["weights"] >= 28


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
def test_every_format_fails_against_another_model_naming_a_weight(exports, tmp_path, name):
    loaded = load_pretrained("tiny")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight[3].neg_()
    convert(loaded.model, weight=WeightScheme("ternary", "tensor"))
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "other", {})
    report = validate_export(exports / name, against=tmp_path / "other")
    assert not report.passed
    assert "model.layers.1.mlp.up_proj" in report.first_failure


@pytest.mark.slow
def test_one_flipped_bit_under_a_true_record_is_found(packed, exports, tmp_path):
    folder = shutil.copytree(exports / "gguf", tmp_path / "gguf")
    path = next(folder.glob("*.gguf"))
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    assert "was changed" in validate_export(folder, against=packed).levels[0].first_failure
    reseal(folder)
    report = validate_export(folder, against=packed)
    assert report.levels[0].passed
    assert not report.levels[1].passed


@pytest.mark.slow
def test_a_plain_folder_of_someone_else_needs_no_record(packed, exports, tmp_path):
    folder = shutil.copytree(exports / "plain", tmp_path / "plain")
    (folder / EXPORT_NAME).unlink()
    assert format_of(folder) == "plain"
    report = validate_export(folder, against=packed)
    assert report.passed, report.first_failure
    assert "foreign" in report.levels[0].detail
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.2.mlp.down_proj.weight"][0, 0] *= 2
    save_file(tensors, path, metadata={"format": "pt"})
    assert "model.layers.2.mlp.down_proj" in validate_export(folder, against=packed).first_failure
    del tensors["model.norm.weight"]
    tensors["model.layers.2.mlp.down_proj.weight"][0, 0] /= 2
    save_file(tensors, path, metadata={"format": "pt"})
    assert "model.norm" in validate_export(folder, against=packed).first_failure


@pytest.mark.slow
def test_a_single_gguf_file_and_a_bitnet_folder_are_recognised(packed, exports, tmp_path):
    path = shutil.copy(next((exports / "gguf").glob("*.gguf")), tmp_path / "mine.gguf")
    report = validate_export(path, against=packed)
    assert report.passed, report.first_failure
    folder = shutil.copytree(exports / "hf_bitnet", tmp_path / "hf")
    (folder / EXPORT_NAME).unlink()
    assert format_of(folder) == "hf_bitnet"
    assert validate_export(folder, against=packed).passed


def test_without_a_packed_folder_the_weights_are_only_read(exports):
    report = validate_export(exports / "gguf")
    assert report.passed
    assert "no packed folder was given" in report.compared_with


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(FormatError, match="nothing that can be validated"):
        format_of(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(FormatError, match=r"config\.json"):
        format_of(tmp_path)


@pytest.mark.slow
def test_rounded_weights_are_held_against_the_rounding_that_was_asked_for(packed, tmp_path):
    export_as("gguf", packed, tmp_path / "rounded", ExportOptions(tables="q8_0"))
    assert json.loads((tmp_path / "rounded" / EXPORT_NAME).read_text())["options"]["tables"] == "q8_0"
    report = validate_export(tmp_path / "rounded", against=packed)
    assert report.passed, report.first_failure
