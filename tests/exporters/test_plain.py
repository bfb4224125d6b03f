from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bitnet_train.errors import FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.plain import read_back
from bitnet_train.exporters.registry import export_as
from bitnet_train.packed import export_packed
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import WeightScheme

FLOAT32 = ExportOptions(dtype="float32")


def plain(model, folder, options=None, **tables):
    export_packed(model, None, folder / "packed", {"base_model": "tiny"}, **tables)
    return export_as("plain", folder / "packed", folder / "out", options or FLOAT32)


@pytest.mark.parametrize("settings", [{}, {"family": "gpt2"}, {"roles": ("mlp", "embedding")}], ids=str)
def test_float32_is_the_dense_form_of_every_trained_weight(make_trained, tmp_path, settings):
    record = plain(make_trained(weight=WeightScheme("ternary", "row"), **settings), tmp_path)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert (record.facts["exact"], record.facts["largest_relative_rounding"]) == (True, 0)
    with open_packed(tmp_path / "packed") as source:
        for name in source.layers:
            weight = model.get_submodule(name).weight
            dense = source.dense(name)
            assert torch.equal(weight.T if "gpt2" in settings.values() and "wte" not in name else weight, dense)
        for name in source.weight_names():
            if name not in source.layers:
                assert torch.equal(model.get_parameter(name), source.dense(name)), name


def test_a_float_model_without_integer_inputs_has_the_logits_of_the_trained_one(make_trained, tmp_path):
    """With activation none the trained model multiplies floats too, by the very same dense weights."""
    trained = make_trained(activation="none")
    plain(trained, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, trained(ids).logits)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_the_record_states_the_largest_rounding_of_a_weight(make_trained, tmp_path, dtype, bits):
    record = plain(make_trained(), tmp_path, ExportOptions(dtype=dtype))
    stored = load_file(tmp_path / "out" / "model.safetensors")
    largest, where = 0.0, ""
    with open_packed(tmp_path / "packed") as source:
        for name, tensor in stored.items():
            assert tensor.dtype == getattr(torch, dtype)
            dense = source.dense(
                name.removesuffix(".weight") if name.removesuffix(".weight") in source.layers else name
            )
            error = float(((tensor.float() - dense).abs() / dense.abs()).max())
            largest, where = max((largest, where), (error, name))
    assert (record.facts["largest_relative_rounding"], record.facts["most_rounded_tensor"]) == (largest, where)
    assert record.facts["exact"] is False
    assert 2.0 ** -(bits + 2) < largest <= 2.0**-bits or dtype == "float16"  # float16 has subnormal weights here
    assert f"{largest:.2e}" in (tmp_path / "out" / "README.md").read_text()


def test_float16_scales_survive_float16(make_trained, tmp_path):
    plain(make_trained(), tmp_path, ExportOptions(dtype="float16"))
    with open_packed(tmp_path / "packed") as source:
        for name, values in read_back(tmp_path / "out"):
            if name.removesuffix(".weight") in source.layers:
                assert torch.equal(values, source.dense(name.removesuffix(".weight"))), name


def test_a_weight_beyond_float16_is_refused_by_name_and_nothing_is_left(make_trained, tmp_path):
    model = make_trained()
    with torch.no_grad():
        model.model.norm.weight[3] = 1e6
    with pytest.raises(
        FormatError, match=r"model\.norm\.weight has a value of magnitude 1e\+06.*`export\.dtype=bfloat16`"
    ):
        plain(model, tmp_path, ExportOptions(dtype="float16"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", ["exact", "int8", "int4"])
def test_a_tied_pair_is_stored_once_and_stays_tied(make_trained, tmp_path, table):
    plain(make_trained(), tmp_path, embedding=table, head=table)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in stored
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with open_packed(tmp_path / "packed") as source:
        name = "model.embed_tokens.weight" if table == "exact" else "model.embed_tokens"
        assert torch.equal(model.lm_head.weight, source.dense(name))


def test_a_pair_that_was_untied_by_conversion_has_two_weights(make_trained, tmp_path):
    plain(make_trained(roles=("mlp", "embedding")), tmp_path)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(stored)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_nothing_in_the_config_says_that_it_was_one_bit(make_trained, tmp_path):
    plain(make_trained(), tmp_path, ExportOptions(dtype="bfloat16"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert not getattr(model, "is_quantized", False)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(model.state_dict()) - {"lm_head.weight"}
