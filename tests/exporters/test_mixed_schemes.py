"""Binary attention, ternary `down_proj`, 1-bit embedding and head: every format that can hold the mix gives it back."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bitnet_train.errors import FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import EXPORTERS, export_as
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.load import load_pretrained
from bitnet_train.importers.packed import reopen_packed
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.overrides import read_overrides
from bitnet_train.model.settings import Selection
from bitnet_train.packed import export_packed
from bitnet_train.packed.sizes import render_sizes
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import WeightScheme

ROLES = ("attention", "mlp", "head", "embedding")
MIX = (
    {"pattern": "down_proj", "name": "ternary", "granularity": "row"},
    {"role": "head", "group_size": 64},
    {"role": "embedding", "name": "ternary"},
)


def mixed_model(weight, *entries, roles=ROLES):
    model = load_pretrained("tiny").model
    convert(model, selection=Selection(roles=roles), weight=weight, overrides=read_overrides(entries, weight))
    return model


@pytest.fixture(scope="module")
def trained():
    return mixed_model(WeightScheme("binary", "group", 128), *MIX)


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed") / "packed"
    export_packed(trained, load_pretrained("tiny").tokenizer, folder)
    return folder


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(3, 24).reshape(1, -1)).logits


def test_layers_of_one_family_with_unequal_schemes_have_rows_of_their_own_in_the_table_of_sizes(tmp_path):
    mixed = mixed_model(WeightScheme(), {"pattern": "layers.1.mlp.down_proj", "name": "ternary"}, roles=("mlp",))
    table = render_sizes(export_packed(mixed, None, tmp_path / "packed"))
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(table)
    rows = {line.split()[0]: line.split()[1] for line in console.export_text().splitlines() if "proj" in line}
    assert rows["model.layers.1.mlp.down_proj"] == "1"
    assert rows["model.layers.*.mlp.down_proj"] == "3"
    assert rows["model.layers.*.mlp.up_proj"] == "4"


@pytest.mark.slow
def test_the_manifest_and_a_reopened_folder_have_the_scheme_of_each_layer(trained, packed):
    model, _, record = reopen_packed(packed)
    assert record.schemes == {
        name: replace(layer.weight_scheme, learnable_scale=True) for name, layer in bit_layers(trained).items()
    }
    assert record.weight.describe() == "binary per group 128"
    assert torch.equal(logits(model), logits(trained))


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name != "hf_bitnet"])
def test_every_format_reads_back_every_weight_of_a_mix(packed, tmp_path, name):
    options = ExportOptions(dtype="float32")
    export_as(name, packed, tmp_path / "out", options)
    exporter = EXPORTERS[name]
    with open_packed(packed) as source:
        found = dict(exporter.read_back(tmp_path / "out"))
        for layer in source.layers:
            wanted = exporter.expected(source, layer, options)
            values = found.get(layer, found.get(f"{layer}.weight"))
            assert torch.equal(values.float(), wanted), layer


@pytest.mark.slow
def test_a_gguf_has_a_block_type_for_each_scheme_and_imports_as_the_same_mix(packed, tmp_path):
    record = export_as("gguf", packed, tmp_path / "out", ExportOptions())
    types = {name: tensor.type_name for name, tensor in open_gguf(tmp_path / "out" / "model.gguf").tensors.items()}
    assert types["blk.0.ffn_down.weight"] == types["blk.1.ffn_down.weight"] == "TQ1_0"
    assert types["blk.0.attn_q.weight"] == types["blk.1.ffn_up.weight"] == "Q1_0"
    assert types["output.weight"] == types["token_embd.weight"] == "Q2_0"
    assert record.facts["layers"] == {"q1_0": 24, "tq1_0": 4, "q2_0": 2}
    assert "q1_0 for 24 binary per group 128" in record.facts["why"]
    loaded = load_pretrained(str(tmp_path / "out" / "model.gguf"))
    names = {name: scheme.name for name, scheme in loaded.record.schemes.items()}
    assert {name for name in names if names[name] == "binary"} == {
        name for name in names if "down_proj" not in name and name not in ("lm_head", "model.embed_tokens")
    }


def test_a_type_that_the_ternary_layers_do_not_fit_is_refused_with_the_way_out(packed, tmp_path):
    with pytest.raises(FormatError, match=r"q1_0`: .*(down_proj|embed_tokens).*no code 0.*`export.type=auto`"):
        export_as("gguf", packed, tmp_path / "out", ExportOptions(type="q1_0"))


def test_one_type_for_all_can_still_be_asked_for(packed, tmp_path):
    record = export_as("gguf", packed, tmp_path / "out", ExportOptions(type="q2_0"))
    assert record.facts["layers"] == {"q2_0": 30}
    assert record.facts["why"] == "asked for"


@pytest.mark.slow
def test_hf_bitnet_holds_a_mix_of_codes_and_refuses_one_finer_layer_by_name(tmp_path):
    tensor = WeightScheme("binary", "tensor")
    down = {"pattern": "down_proj", "name": "ternary"}
    export_packed(mixed_model(tensor, down, roles=ROLES[:2]), None, tmp_path / "held")
    export_as("hf_bitnet", tmp_path / "held", tmp_path / "out", ExportOptions())
    finer = {**down, "granularity": "row"}
    export_packed(mixed_model(tensor, finer, roles=ROLES[:2]), None, tmp_path / "finer")
    with pytest.raises(
        FormatError, match=r"layers.0.mlp.down_proj has ternary per row scales, and hf_bitnet holds one"
    ):
        export_as("hf_bitnet", tmp_path / "finer", tmp_path / "refused", ExportOptions())
