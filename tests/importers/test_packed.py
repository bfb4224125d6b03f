from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.importers.packed import reopen_packed
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.packed.manifest import seal
from bitnet_train.quant.scheme import GRANULARITIES, TABLE_BITS, ActivationScheme, WeightScheme
from bitnet_train.quant.stored import rounded
from bitnet_train.runtime.load import load
from tests.fixtures.schemes import CODE_SETS, weight_scheme

ROLES = ("attention", "mlp", "head", "embedding")


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(3, 24).reshape(1, -1)).logits


@pytest.mark.slow
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_packed_model_opens_with_its_codes_scales_and_logits(make_trained, tmp_path, family, name, granularity):
    scheme = weight_scheme(name, granularity, group_size=32)
    trained = make_trained(family, weight=scheme, roles=ROLES)
    export_packed(trained, None, tmp_path / "packed")
    model, tokenizer, record = reopen_packed(tmp_path / "packed")
    assert record.layers == tuple(bit_layers(trained))
    assert record.weight == replace(scheme, learnable_scale=True)
    assert record.selection.roles == ROLES
    assert tokenizer is None
    for layer_name, layer in bit_layers(trained).items():
        for was, now in zip(layer.quantized(), bit_layers(model)[layer_name].quantized(), strict=True):
            assert torch.equal(was, now)
    assert torch.equal(logits(model), logits(trained))


def test_packed_again_it_has_the_same_hashes(make_trained, byte_tokenizer, tmp_path):
    learnable = WeightScheme(learnable_scale=True)
    first = export_packed(make_trained(weight=learnable), byte_tokenizer, tmp_path / "first")
    model, tokenizer, _ = reopen_packed(tmp_path / "first")
    second = export_packed(model, tokenizer, tmp_path / "second")
    assert second.layers == first.layers
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]


def test_activations_come_along(make_trained, tmp_path):
    trained = make_trained(activation="sign")
    export_packed(trained, None, tmp_path / "packed")
    model, _, record = reopen_packed(tmp_path / "packed")
    assert record.activation == ActivationScheme("sign")
    assert torch.equal(logits(model), logits(trained))


@pytest.mark.parametrize("stored", TABLE_BITS)
def test_tables_keep_their_bits_and_compute_what_the_folder_does(make_trained, tmp_path, stored):
    export_packed(make_trained(), None, tmp_path / "packed", embedding=stored, head=stored)
    model, _, record = reopen_packed(tmp_path / "packed")
    table = model.get_input_embeddings().weight
    assert torch.equal(rounded(table, stored), table)
    assert model.get_output_embeddings().weight is table
    assert (record.tables, record.stored_tables) == (("model.embed_tokens", "lm_head"), stored)
    assert torch.equal(logits(model), logits(load(tmp_path / "packed")))
    export_packed(model, None, tmp_path / "again")
    assert read_manifest(tmp_path / "again").tables == read_manifest(tmp_path / "packed").tables


def test_tables_of_different_bits_are_refused(make_trained, tmp_path):
    export_packed(make_trained("odd"), None, tmp_path / "packed", embedding="int4", head="int8")
    with pytest.raises(FormatError, match="has tables of different bits, and a model trains with one kind"):
        reopen_packed(tmp_path / "packed")


def test_layers_of_two_activations_are_refused(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "packed")
    path = tmp_path / "packed" / "manifest.json"
    body = json.loads(path.read_text())
    del body["manifest_sha256"]
    body["layers"][0]["activation"] = "int4"
    path.write_text(seal(body))
    with pytest.raises(FormatError, match="layers with activations int4, int8"):
        reopen_packed(tmp_path / "packed")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FormatError):
        reopen_packed(tmp_path)
