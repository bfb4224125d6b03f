from __future__ import annotations

import pytest

import bitnet_train
from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.lora_layers import LoraInside
from bitnet_train.model.settings import AdapterConfig, Selection, WeightConfig
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped
from tests.fixtures.families import tiny_model


def test_a_name_and_its_object_give_the_same_model() -> None:
    by_name, by_object = tiny_model(), tiny_model()
    plan = bitnet_train.convert(by_name, "ternary_tensor", activation="int4")
    scheme = WeightScheme("ternary", "tensor")
    assert plan == bitnet_train.convert(by_object, weight=scheme, activation=ActivationScheme("int4"))
    assert repr(by_name) == repr(by_object)
    assert set(plan.schemes.values()) == {scheme}


def test_a_plan_changes_nothing_and_decides_what_convert_does() -> None:
    model = tiny_model()
    plan = bitnet_train.plan(model, "binary_row", overrides=[{"pattern": "down_proj", "keep": True}])
    assert bit_layers(model) == {}
    assert bitnet_train.convert(model, "ternary_row", plan=plan) is plan
    assert tuple(bit_layers(model)) == plan.converted
    assert {scheme.name for scheme in plan.schemes.values()} == {"binary"}
    assert not any("down_proj" in name for name in plan.converted)


def test_a_choice_that_sets_roles_and_overrides_is_taken_whole() -> None:
    plan = bitnet_train.plan(tiny_model(), WeightConfig(overrides=({"role": "mlp", "name": "ternary"},)))
    names = {row.role: row.scheme.name for row in plan.rows if row.scheme is not None}
    assert names == {"attention": "binary", "mlp": "ternary"}
    with pytest.raises(ConversionError, match="group_size=128"):  # of the choice, with the head that it selects
        bitnet_train.plan(tiny_model(), "binary_everywhere")


def test_a_selection_of_ones_own_stands_above_the_choice() -> None:
    plan = bitnet_train.plan(tiny_model(), "binary_row", selection=Selection(roles=("mlp",)))
    assert {row.role for row in plan.rows if row.action == "convert"} == {"mlp"}


def test_gradients_pass_as_the_choice_says_unless_told_otherwise() -> None:
    model, other = tiny_model(), tiny_model()
    bitnet_train.convert(model, WeightConfig(estimator="clipped", clip=3.0))
    assert {layer.surrogate for layer in bit_layers(model).values()} == {Clipped(3.0)}
    bitnet_train.convert(other, surrogate=Clipped(2.0))
    assert {layer.surrogate for layer in bit_layers(other).values()} == {Clipped(2.0)}


def test_a_wrong_name_leaves_the_model_as_it_is() -> None:
    model = tiny_model()
    for words in ({"weight": "binary"}, {"activation": "int9"}):
        with pytest.raises(ConfigError, match="there is no such choice"):
            bitnet_train.convert(model, **words)
    assert bit_layers(model) == {}


def test_an_adapter_is_attached_by_name_and_merged() -> None:
    model = tiny_model()
    bitnet_train.convert(model)
    adapted = bitnet_train.attach(model, "lora_inside")
    assert any(isinstance(module, LoraInside) for module in adapted.modules())
    assert bitnet_train.merge(adapted) is model
    assert bitnet_train.attach(model, AdapterConfig("none")) is model
    with pytest.raises(ConfigError, match=r"Did you mean `lora_inside`"):
        bitnet_train.attach(model, "lora_insid")
