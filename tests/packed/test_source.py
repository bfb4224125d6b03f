from __future__ import annotations

import json

import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.packed import export_packed
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import GRANULARITIES
from tests.fixtures.schemes import CODE_SETS, weight_scheme


@pytest.fixture
def folder(make_trained, byte_tokenizer, tmp_path):
    export_packed(make_trained(), byte_tokenizer, tmp_path / "packed", {})
    return tmp_path / "packed"


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_a_layer_is_given_as_the_trained_model_computes_it(make_trained, tmp_path, name, granularity):
    model = make_trained(weight=weight_scheme(name, granularity, group_size=32, learnable_scale=True))
    export_packed(model, None, tmp_path / "packed", {})
    with open_packed(tmp_path / "packed") as source:
        assert list(source.layers) == list(bit_layers(model))
        for layer_name, trained in bit_layers(model).items():
            codes, scale = trained.quantized()
            layer = source.layer(layer_name)
            assert torch.equal(layer.codes, codes)
            assert torch.equal(layer.scale, scale)
            assert (layer.bias is None) == (trained.bias is None)
            if layer.bias is not None:
                assert torch.equal(layer.bias, trained.bias)
                assert torch.equal(source.dense(f"{layer_name}.bias"), trained.bias)
            spread = scale.repeat_interleave(codes.shape[1] // scale.shape[1], dim=1)
            assert torch.equal(source.dense(layer_name), spread * codes)


def test_every_weight_is_named_once_and_no_buffer_is(folder, make_trained):
    with open_packed(folder) as source:
        names = source.weight_names()
        assert len(names) == len(set(names))
        own = {f"{name}.weight" if name in source.layers else name for name in names}
        parameters = {name for name, _ in make_trained().named_parameters()}
        assert own == parameters
        assert "model.rotary_emb.inv_freq" in source.floats


def test_a_tied_head_is_the_embedding(folder):
    with open_packed(folder) as source:
        assert source.tied == {"lm_head.weight": "model.embed_tokens.weight"}
        assert torch.equal(source.dense("lm_head.weight"), source.dense("model.embed_tokens.weight"))
        assert source.float("model.embed_tokens.weight").dtype == torch.bfloat16


def test_an_int8_table_is_scale_times_code(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "packed", {}, embedding="int8", head="int8")
    with open_packed(tmp_path / "packed") as source:
        embedding, head = source.table("model.embed_tokens"), source.table("lm_head")
        assert torch.equal(embedding.codes, head.codes)
        assert torch.equal(source.dense("lm_head"), head.scale[:, None] * head.codes.float())
        assert "lm_head" not in source.weight_names(), "a format carries a tied pair once"


def test_companions_are_files_of_the_manifest_only(folder):
    (folder / "stray.json").write_text("{}")
    with open_packed(folder) as source:
        assert source.companion("stray.json") is None
        companion = source.companion("tokenizer.json")
        assert companion is not None
        assert companion.is_file()
        assert source.config["model_type"] == "llama"


def test_a_damaged_folder_is_refused_before_it_is_used(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 65}))
    with pytest.raises(FormatError, match=r"config\.json"), open_packed(folder):
        pass
