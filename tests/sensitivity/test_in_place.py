from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM

from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert, plan_conversion
from bitnet_train.model.select import candidates
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.sensitivity.in_place import InPlace
from tests.fixtures.trained_models import CONFIGS

ROLES = ("attention", "mlp", "head", "embedding")
SCHEME = WeightScheme("ternary", "group", 32)


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(deepcopy(CONFIGS[request.param]), dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(3, 40).reshape(1, -1)).logits


@pytest.mark.parametrize("activation", ["int8", "sign", "none"])
def test_each_layer_computes_what_its_converted_self_gives(model, activation):
    plan = plan_conversion(model, Selection(roles=ROLES), SCHEME)
    converted = deepcopy(model)
    convert(converted, selection=Selection(roles=ROLES), weight=SCHEME, activation=ActivationScheme(activation))
    layers = candidates(model)
    InPlace(layers, ActivationScheme(activation)).quantize(plan.schemes)
    for name, other in bit_layers(converted).items():
        x = torch.arange(40) if other.kind == "embedding" else torch.randn(3, 5, other.weight.shape[1])
        assert torch.allclose(layers[name](x), other(x), atol=1e-5), name  # a float sum here, one of integers there


def test_every_parameter_is_put_back_and_tied_ones_are_tied_again(model):
    before, ids = logits(model), {name: id(value) for name, value in model.named_parameters(remove_duplicate=False)}
    in_place = InPlace(candidates(model), ActivationScheme())
    in_place.quantize(plan_conversion(model, Selection(roles=ROLES), SCHEME).schemes)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    in_place.put_back()
    assert {name: id(value) for name, value in model.named_parameters(remove_duplicate=False)} == ids
    assert torch.equal(logits(model), before)


def test_one_layer_is_put_back_while_the_others_stay_quantised(model):
    schemes = plan_conversion(model, Selection(), SCHEME).schemes
    first, *others = schemes
    in_place = InPlace(candidates(model), ActivationScheme())
    in_place.quantize(schemes)
    in_place.put_back([first])
    spared = logits(model)
    in_place.put_back()
    in_place.quantize({name: schemes[name] for name in others})
    assert torch.equal(logits(model), spared)
