import itertools

import pytest
import torch
from torch import nn

from bitnet_train.errors import FormatError
from bitnet_train.formats.planes import pack_planes
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity
from tests.fixtures.families import converted_model, logits
from tests.fixtures.schemes import CODE_SETS, weight_scheme

WEIGHTS = [weight_scheme(name, grain, 25) for name, grain in itertools.product(CODE_SETS, GRANULARITIES)]
SIZES = [(1, 25), (7, 75), (33, 200)]


def bit_linear(num_outputs, num_inputs, weight, activation, bias):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(num_outputs)
        linear = nn.Linear(num_inputs, num_outputs, bias=bias)
    return BitLinear.from_linear(linear, weight, ActivationScheme(activation), Identity()).eval()


def pack(layer):
    codes, scale = layer.quantized()
    planes = pack_planes(codes, layer.weight_scheme.code_set)
    bias = None if layer.bias is None else layer.bias.detach()
    return PackedLinear.from_planes(planes, scale, bias, layer.in_features, layer.weight_scheme, layer.activation)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATION_SCHEMES)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_the_packed_layer_is_the_evaluated_layer_bit_for_bit(size, weight, activation, bias):
    layer = bit_linear(*size, weight, activation, bias)
    packed = pack(layer)
    generator = torch.Generator().manual_seed(0)
    for shape in [(size[1],), (1, size[1]), (2, 3, size[1]), (0, size[1])]:
        x = 3 * torch.randn(shape, generator=generator)
        assert torch.equal(packed(x), layer(x))
    half = torch.randn(4, size[1], generator=generator).to(torch.bfloat16)
    assert packed(half).dtype == torch.bfloat16
    assert torch.equal(packed(half), layer(half))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_codes_come_back(weight):
    layer = bit_linear(7, 75, weight, "int8", bias=True)
    assert torch.equal(pack(layer).codes(), layer.quantized()[0])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("activation", ACTIVATION_SCHEMES)
def test_a_model_of_packed_layers_has_the_same_logits(family, activation):
    model = converted_model(family, WeightScheme(granularity="group", group_size=16), activation)
    expected = logits(model)
    for name, layer in bit_layers(model).items():
        model.set_submodule(name, pack(layer), strict=True)
    assert not bit_layers(model)
    assert torch.equal(logits(model), expected)


def test_autocast_changes_nothing():
    packed = pack(bit_linear(7, 75, WeightScheme(), "none", bias=True)).eval()
    x = torch.randn(4, 75, generator=torch.Generator().manual_seed(0))
    expected = packed(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(x), expected)


def test_a_state_dict_of_packed_layers_loads_into_others():
    source, target = (bit_linear(7, 75, WeightScheme(), "int8", bias=True) for _ in range(2))
    with torch.no_grad():
        target.weight.neg_()
    first, second = pack(source), pack(target)
    second.load_state_dict(first.state_dict())
    x = torch.randn(4, 75, generator=torch.Generator().manual_seed(0))
    assert torch.equal(second(x), source(x))


def test_planes_scale_and_bias_must_fit_together():
    layer = bit_linear(7, 75, WeightScheme(), "int8", bias=True)
    codes, scale = layer.quantized()
    planes, scheme, activation = pack_planes(codes, "binary"), layer.weight_scheme, layer.activation
    with pytest.raises(FormatError, match=r"binary weight with 200 inputs"):
        PackedLinear.from_planes(planes, scale, None, 200, scheme, activation)
    with pytest.raises(ValueError, match=r"`scale` has shape \[6, 1\].*\[7, 1\]"):
        PackedLinear.from_planes(planes, scale[:6], None, 75, scheme, activation)
    with pytest.raises(ValueError, match=r"`bias` has shape \[6\].*\[7\]"):
        PackedLinear.from_planes(planes, scale, torch.zeros(6), 75, scheme, activation)
