"""Tables that train rounded: what a model holds is what its folder will, and evaluation computes as the folder does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.kernels import reference_int8
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.model.converted import ConversionRecord, load_converted, save_converted
from bitnet_train.model.rounded_table import (
    RoundedEmbedding,
    RoundedLinear,
    put_tables,
    round_floats,
    stored_parameters,
    table_names,
)
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import TABLE_BITS, WeightScheme
from bitnet_train.quant.stored import rounded
from bitnet_train.quant.table import table_codes
from bitnet_train.runtime.load import load
from bitnet_train.validation.validate import validate

TOKENS = torch.randint(0, 256, (3, 19), generator=torch.Generator().manual_seed(3))
SMALL = {"num_prompts": 14, "new_tokens": 3, "num_tokens": 200}
FAMILIES = ("llama", "gpt2", "odd")


def record_of(model, tables):
    layers = {name: layer.weight_scheme for name, layer in model.named_modules() if isinstance(layer, BitLayer)}
    return ConversionRecord.of_schemes(layers, WeightScheme(), tables=tables)


@pytest.mark.slow
@pytest.mark.parametrize("stored", TABLE_BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_rounded_model_is_packed_in_few_bytes_and_proven_at_tolerance_0(make_trained, tmp_path, family, stored):
    model = make_trained(family)
    names = round_floats(model, stored)
    assert len(names) == 2
    manifest = export_packed(model, None, tmp_path / "out", {})
    assert [(table.name, table.bits) for table in manifest.tables] == [(name, TABLE_BITS[stored]) for name in names]
    wide = {name for name, entry in manifest.tensors.items() if entry.dtype == "float32"}
    assert not {name for name in wide if "inv_freq" not in name}
    report = validate(tmp_path / "out", against=model, **SMALL)
    assert report.passed, report.first_failure
    assert report.compared_with == "the trained model", "nothing was rounded on the way out"
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "out")(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_rounded_when_it_is_read_again(make_trained, tmp_path, family, mapped):
    model = make_trained(family)
    record = record_of(model, round_floats(model))
    save_converted(model, record, tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "conversion.json").read_text())["schema"] == 3
    again, _, found = load_converted(tmp_path / "merged", mapped=mapped)
    assert found == record
    assert found.is_rounded
    assert [type(again.get_submodule(name)) for name in record.tables] == [RoundedEmbedding, RoundedLinear]
    if not mapped:
        with torch.no_grad():
            assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)


def test_tables_of_few_bits_are_read_again_as_what_they_are_and_no_earlier_version_rounds_them_anew(
    make_trained, tmp_path
):
    model = make_trained("odd")
    record = replace(record_of(model, round_floats(model, "int4")), stored_tables="int4")
    save_converted(model, record, tmp_path / "merged")
    content = json.loads((tmp_path / "merged" / "conversion.json").read_text())
    assert (content["schema"], content["stored_tables"]) == (4, "int4")
    again, _, found = load_converted(tmp_path / "merged")
    assert found == record
    kinds = {stored for _, stored in stored_parameters(again)}
    assert kinds == {"int4", "bfloat16"}
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, model(TOKENS).logits)
    with pytest.raises(FormatError, match=r"`stored_tables` is 'int3', and may be int8, int5, int4"):
        ConversionRecord.from_dict({**content, "stored_tables": "int3"})


def test_a_table_of_8_bits_becomes_one_of_4(make_trained):
    model = make_trained()
    round_floats(model)
    round_floats(model, "int4")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {stored for _, stored in stored_parameters(model)} == {"int4", "bfloat16"}


def test_a_record_without_tables_says_the_schema_that_earlier_versions_read(make_trained):
    record = record_of(make_trained(), None)
    assert record.to_dict()["schema"] == 1
    assert ConversionRecord.from_dict(record.to_dict()) == record
    assert not record.is_rounded


@pytest.mark.parametrize("stored", TABLE_BITS)
def test_the_head_evaluates_the_integers_of_the_packed_one_by_the_oracle_and_by_the_kernels(make_trained, stored):
    model = make_trained("odd")
    round_floats(model, stored)
    head = model.get_output_embeddings()
    x = torch.randn(2, 5, head.in_features, generator=torch.Generator().manual_seed(0))
    codes, scale = table_codes(head.weight, TABLE_BITS[stored])
    expected = reference_int8.int8_linear(x.flatten(0, 1), codes, scale.float()).reshape(2, 5, -1)
    assert torch.equal(head(x), expected)
    with on_kernels():
        assert torch.equal(head(x), expected)
    head.train()
    assert torch.equal(head(x), nn.functional.linear(x, head.weight)), "training multiplies floats"


def test_evaluation_follows_a_weight_that_changes(make_trained):
    model = make_trained("odd")
    round_floats(model)
    head, x = model.get_output_embeddings(), torch.ones(1, 48)
    with on_kernels(), torch.no_grad():
        before = head(x)
        head.weight.mul_(2)
        assert torch.equal(head(x), before * 2)


def test_a_tied_pair_stays_one_parameter_and_trains_as_one(make_trained):
    model = make_trained()
    embedding = model.get_input_embeddings().weight
    round_floats(model)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight is embedding
    model.train()(TOKENS, labels=TOKENS).loss.backward()
    assert embedding.grad is not None


def test_everything_outside_the_one_bit_weights_is_rounded_and_nothing_else(make_trained):
    model = make_trained("gpt2", WeightScheme(learnable_scale=True))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    round_floats(model)
    packed = {id(t) for m in model.modules() if isinstance(m, BitLayer) for t in (m.weight, m.scale)}
    for name, parameter in model.named_parameters():
        if id(parameter) in packed:
            assert torch.equal(parameter, before[name]), name
        elif name.endswith("wte.weight"):
            assert torch.equal(parameter, rounded(before[name], "int8"))
        else:
            assert torch.equal(parameter, before[name].bfloat16().float()), name


def test_a_one_bit_end_is_no_table_and_the_other_still_is(make_trained):
    assert table_names(make_trained("llama", roles=("mlp", "embedding"))) == ("lm_head",)
    assert table_names(make_trained("odd", WeightScheme("ternary"), roles=("mlp", "head"))) == ("model.embed_tokens",)


def test_an_embedding_that_does_more_than_look_up_stays_bfloat16(make_trained):
    class Scaled(nn.Embedding):
        def forward(self, token_ids):
            return super().forward(token_ids) * 8

    model = make_trained("odd")
    model.set_input_embeddings(Scaled(258, 48))
    assert round_floats(model) == ("lm_head",)
    stored = {id(parameter): kind for parameter, kind in stored_parameters(model)}
    assert stored[id(model.get_input_embeddings().weight)] == "bfloat16"


def test_a_module_that_cannot_be_a_table_is_refused_by_name(make_trained):
    with pytest.raises(ConversionError, match=r"LlamaForCausalLM has no plain embedding or linear model\.norm"):
        put_tables(make_trained(), ["model.norm"])


def test_a_table_that_was_changed_after_training_is_not_exported_as_another(make_trained, tmp_path):
    model = make_trained("odd")
    round_floats(model)
    with torch.no_grad():
        model.lm_head.weight[3, 1] *= 1.01
    with pytest.raises(FormatError, match=r"lm_head: its weights are not the int8 values it trained with"):
        export_packed(model, None, tmp_path / "out", {})
