from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert, plan_conversion
from bitnet_train.model.converted import ConversionRecord, load_converted, save_converted
from bitnet_train.model.overrides import read_overrides
from bitnet_train.model.patterns import ROLES
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.families import logits, tiny_model

BINARY = WeightScheme("binary", "group", 16, learnable_scale=True)


def overrides(*entries, weight=BINARY):
    return read_overrides(entries, weight)


def mixed(*entries, selection=None, family="smollm"):
    """A tiny model converted with these overrides, and its plan."""
    model = tiny_model(family)
    return model, convert(model, selection=selection, weight=BINARY, overrides=overrides(*entries))


def test_a_layer_gets_the_scheme_of_its_entry_and_the_rest_of_it_from_weight():
    model, plan = mixed({"pattern": "down_proj", "name": "ternary", "granularity": "row"})
    for name, layer in bit_layers(model).items():
        expected = WeightScheme("ternary", "row", 16, learnable_scale=True) if "down_proj" in name else BINARY
        assert layer.weight_scheme == plan.schemes[name] == expected


def test_of_entries_that_fit_the_last_decides_as_a_whole():
    model, _ = mixed(
        {"role": "mlp", "keep": True},
        {"pattern": "down_proj", "granularity": "row"},
        {"pattern": "layers.1.*", "role": "mlp", "name": "ternary"},
    )
    found = {name.split("layers.")[1]: layer.weight_scheme.describe() for name, layer in bit_layers(model).items()}
    assert found.pop("0.mlp.down_proj") == "binary per row"
    assert found.pop("1.mlp.down_proj") == "ternary per group 16"
    assert {name for name in found if "mlp" in name} == {"1.mlp.gate_proj", "1.mlp.up_proj"}


def test_one_layer_can_have_more_planes_and_another_name_has_one():
    two = replace(BINARY, planes=2)
    more = overrides({"pattern": "down_proj", "planes": 3}, {"role": "head", "name": "ternary"}, weight=two)
    assert [override.scheme for override in more] == [replace(two, planes=3), replace(BINARY, name="ternary")]
    with pytest.raises(ConfigError, match=r"`weight\.overrides\[0\]\.planes=2` needs"):
        overrides({"pattern": "down_proj", "name": "ternary", "planes": 2})
    with pytest.raises(ConfigError, match=r"`weight\.overrides\[0\]\.planes=5`"):
        overrides({"pattern": "down_proj", "planes": 5})


def test_the_plan_says_the_scheme_of_every_layer_and_why_one_is_kept():
    _, plan = mixed({"pattern": "down_proj", "name": "ternary"}, {"pattern": "up_proj", "keep": True})
    lines = {line.split()[0]: " ".join(line.split()[4:]) for line in plan.render().splitlines() if " x " in line}
    assert lines["model.layers.*.mlp.down_proj"] == "ternary per group 16 2"
    assert lines["model.layers.*.mlp.up_proj"] == "float 2"
    assert lines["model.layers.*.mlp.gate_proj"] == "binary per group 16 2"
    assert "Float: model.layers.*.mlp.up_proj: kept by `weight.overrides[1]`." in plan.render()


def test_head_and_embedding_can_have_schemes_of_their_own():
    model, plan = mixed(
        {"role": "head", "group_size": 32}, {"role": "embedding", "name": "ternary"}, selection=Selection(roles=ROLES)
    )
    assert model.get_output_embeddings().weight_scheme.describe() == "binary per group 32"
    assert model.get_input_embeddings().weight_scheme.describe() == "ternary per group 16"
    assert "each becomes 1-bit with a copy of its own" in " ".join(plan.render().split())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"pattern": "down_prj", "name": "ternary"}, r"overrides\[0\]` \(pattern 'down_prj'\) matched no.*down_proj"),
        ({"role": "head", "name": "ternary"}, r"only layers that are not selected, such as lm_head \(role head\)"),
        ({"pattern": "up_proj", "role": "attention", "keep": True}, "pattern 'up_proj', role 'attention'"),
        ({"pattern": "down_proj", "group_size": 64}, r"layers.0.mlp.down_proj: `weight.group_size=64` does not divide"),
    ],
)
def test_an_entry_that_cannot_be_carried_out_is_refused_before_anything_changes(entry, message):
    model = tiny_model()
    with pytest.raises(ConversionError, match=message):
        convert(model, weight=BINARY, overrides=overrides(entry))
    assert not bit_layers(model)


def test_a_layer_that_is_not_selected_may_be_kept():
    plan = plan_conversion(tiny_model(), Selection(), BINARY, overrides({"role": "head", "keep": True}))
    assert len(plan.converted) == 14


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"pattern": "x", "nam": "ternary"}, r"unknown key `nam`\. Did you mean `name`\?"),
        ({"pattern": "x", "name": "octal"}, r"`weight.overrides\[0\].name=octal` is not a known choice"),
        ({"pattern": "x", "group_size": 0}, r"`weight.overrides\[0\].group_size=0` is out of .* 1 or more"),
        ({"pattern": "x", "group_size": "64"}, "is not a whole number"),
        ({"pattern": "x", "group_size": True}, "is not a whole number"),
        ({"pattern": "x", "keep": 1}, "is not true or false"),
        ({"pattern": "x"}, "changes nothing"),
        ({"pattern": "x", "keep": True, "name": "ternary"}, "keeps layers float and says how"),
        ({"name": "ternary"}, "does not say whom it is about"),
        ({"role": "heads", "name": "ternary"}, "Allowed: attention, mlp, head, embedding"),
        ("down_proj", "must be an entry such as"),
    ],
)
def test_a_wrong_entry_is_refused_before_a_model_is_there(entry, message):
    with pytest.raises(ConfigError, match=message):
        overrides(entry)


def saved(folder):
    ternary = {"name": "ternary", "granularity": "row"}
    model, plan = mixed({"role": "mlp", "keep": True}, {"pattern": "layers.1.mlp.down_proj", **ternary})
    record = ConversionRecord.of_schemes(plan.schemes, BINARY)
    save_converted(model, record, folder)
    return model, record


def test_a_mixed_model_is_saved_and_comes_back_bit_for_bit(tmp_path):
    model, record = saved(tmp_path / "merged")
    for mapped in (False, True):
        loaded, _, loaded_record = load_converted(tmp_path / "merged", mapped=mapped)
        assert loaded_record == record
        assert loaded_record.schemes == {name: layer.weight_scheme for name, layer in bit_layers(model).items()}
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert torch.equal(logits(load_converted(tmp_path / "merged")[0]), logits(model))


def test_a_mixed_record_has_a_schema_that_earlier_versions_refuse_and_a_plain_one_has_not(tmp_path):
    _, record = saved(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "conversion.json").read_text())["schema"] == 2
    assert record.describe() == "8 layers binary per group 16 and 1 layers ternary per row"
    plain = ConversionRecord(("a", "b"), BINARY)
    assert plain.to_dict()["schema"] == 1
    assert "mixed" not in plain.to_dict()
    assert plain.describe() == "2 layers binary per group 16"
