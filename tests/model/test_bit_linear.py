import copy
import itertools

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from bitnet_train.errors import ConversionError
from bitnet_train.kernels import reference
from bitnet_train.model.bit_linear import BitLinear, bit_layers, on_kernels, set_hardness
from bitnet_train.quant.activation import fake_quantize_activation, quantize_activation
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES, Identity, Tanh
from bitnet_train.quant.weight import dequantize
from tests.fixtures.families import converted_model
from tests.fixtures.schemes import CODE_SETS, weight_scheme

WEIGHTS = [weight_scheme(name, grain, 16) for name, grain in itertools.product(CODE_SETS, GRANULARITIES)]
ACTIVATIONS = [ActivationScheme(name) for name in ACTIVATION_SCHEMES]
NUM_INPUTS, NUM_OUTPUTS = 48, 20


def make(weight=None, activation=None, surrogate=None, bias=True, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(NUM_INPUTS, NUM_OUTPUTS, bias=bias)
    return BitLinear.from_linear(
        linear, weight or WeightScheme(), activation or ActivationScheme(), surrogate or Identity()
    )


def inputs(*shape, seed=1):
    return torch.randn(*(shape or (2, 5)), NUM_INPUTS, generator=torch.Generator().manual_seed(seed))


def contract(x_codes, x_scale, codes, scale, weight):
    """The output without a bias, of several planes that of each +-1 plane added in turn."""
    parts = reference.split_planes(codes, scale, weight.planes) if weight.planes > 1 else [(codes, scale)]
    group_size = weight.inputs_per_scale(NUM_INPUTS)
    first, *others = [reference.rescale(reference.grouped_dot(x_codes, w, group_size), s, x_scale) for w, s in parts]
    for other in others:
        first = first + other
    return first


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_evaluation_is_the_float_contract_bit_for_bit(weight, activation):
    layer, x = make(weight, activation).eval(), inputs()
    codes, scale = layer.quantized()
    if activation.name == "none":
        expected = nn.functional.linear(x.reshape(-1, NUM_INPUTS), dequantize(codes, scale), layer.bias)
    else:
        x_codes, x_scale = quantize_activation(x.reshape(-1, NUM_INPUTS), activation)
        expected = contract(x_codes, x_scale, codes, scale, weight) + layer.bias
    assert torch.equal(layer(x), expected.reshape(2, 5, NUM_OUTPUTS))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_kernels_give_the_same_bits_and_follow_what_changes(weight, activation, bias, monkeypatch):
    layer, x = make(weight, activation, bias=bias).eval(), inputs()
    expected, expected_bf16 = layer(x), layer(x[0].bfloat16())
    with torch.no_grad():
        changed = copy.deepcopy(layer)
        changed.weight.neg_()
        if bias:
            changed.bias.add_(1.0)
    expected_then = changed(x)
    monkeypatch.setattr(reference, "linear", lambda *_: pytest.fail("the oracle was asked"))
    with on_kernels():
        assert torch.equal(layer(x), expected)
        assert torch.equal(layer(x[0].bfloat16()), expected_bf16)
        with torch.no_grad():
            layer.weight.neg_()
            if bias:
                layer.bias.add_(1.0)
        assert torch.equal(layer(x), expected_then)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_training_computes_the_evaluation_value_up_to_float_rounding(weight, activation, name):
    # The integers are exact and W_eff = +-alpha is too. A term is rounded at most 3 times (x_q, times alpha, times the
    # token scale); adding K terms or G partial sums and the bias rounds K + G + 2 times more. So each of the two values
    # is within gamma (sum |x_q| |w_q| + |b|) of the exact one, gamma = n u / (1 - n u), and they differ by twice that.
    layer, x = make(weight, activation, SURROGATES[name]()), inputs()
    difference = (layer.train()(x) - layer.eval()(x)).abs()
    codes, scale = layer.quantized()
    magnitude = fake_quantize_activation(x, activation).abs().double() @ dequantize(codes, scale).abs().double().T
    roundings = NUM_INPUTS + scale.shape[1] + 7
    gamma = roundings * 2.0**-24 / (1 - roundings * 2.0**-24)
    assert torch.all(difference <= 2 * gamma * (magnitude + layer.bias.abs()))


def test_a_conv1d_becomes_the_same_layer_as_the_linear_with_its_transposed_weight():
    linear, conv = nn.Linear(NUM_INPUTS, NUM_OUTPUTS), Conv1D(NUM_OUTPUTS, NUM_INPUTS)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.T)
        conv.bias.copy_(linear.bias)
    layers = [BitLinear.from_linear(m, WeightScheme(), ActivationScheme(), Identity()).eval() for m in (linear, conv)]
    assert torch.equal(layers[0](inputs()), layers[1](inputs()))


def test_another_module_cannot_become_a_bit_linear():
    with pytest.raises(ConversionError, match=r"Embedding cannot become a BitLinear. Allowed: nn.Linear"):
        BitLinear.from_linear(nn.Embedding(4, 4), WeightScheme(), ActivationScheme(), Identity())


def test_a_learnable_scale_starts_at_the_fixed_one_and_is_used():
    fixed, learnable = make().eval(), make(WeightScheme(learnable_scale=True)).eval()
    assert torch.equal(fixed(inputs()), learnable(inputs()))
    with torch.no_grad():
        learnable.scale.mul_(2)
    assert torch.equal(learnable.quantized()[1], 2 * fixed.quantized()[1])
    assert not torch.equal(fixed(inputs()), learnable(inputs()))


@pytest.mark.parametrize("weight", [*WEIGHTS, WeightScheme(learnable_scale=True)])
def test_gradients_reach_input_latent_bias_and_learnable_scale(weight):
    layer, x = make(weight).train(), inputs().requires_grad_(True)
    layer(x).square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert bool(tensor.grad.abs().sum() > 0)


def test_the_learnable_scale_gradient_is_codes_times_weight_gradient_over_root_size():
    layer, x = make(WeightScheme(granularity="group", group_size=16, learnable_scale=True)).train(), inputs(7)
    upstream = torch.randn(7, NUM_OUTPUTS, generator=torch.Generator().manual_seed(3))
    layer(x).backward(upstream)
    by_weight = upstream.T @ fake_quantize_activation(x, layer.activation)
    expected = (by_weight * layer.quantized()[0]).reshape(NUM_OUTPUTS, 3, 16).sum(-1) / layer.weight.numel() ** 0.5
    torch.testing.assert_close(layer.scale.grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_evaluation_returns_the_input_dtype_and_computes_in_float32(dtype):
    layer, x = make().eval(), inputs().to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    assert torch.equal(y, layer(x.float()).to(dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_evaluation_ignores_autocast_and_training_honours_it(activation):
    layer, x = make(activation=activation), inputs()
    expected = layer.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.eval()(x), expected)
        assert layer.train()(x).dtype == torch.bfloat16


def test_training_in_autocast_takes_scale_and_codes_from_float32():
    layer = make(WeightScheme(scale_dtype="float32"))
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.effective_weight()
    assert torch.equal(weight, dequantize(*layer.quantized()))


def test_a_soft_weight_only_shows_in_training():
    layer = make(surrogate=Tanh())
    hard = layer.eval()(inputs())
    set_hardness(layer, 0.5)
    assert torch.equal(layer.eval()(inputs()), hard)
    assert not torch.allclose(layer.train()(inputs()), hard, atol=1e-3)


def test_evaluation_sees_an_optimiser_step_and_a_loaded_state():
    layer, other = make(), make(seed=1)
    before = layer.eval()(inputs())
    with torch.no_grad():
        layer.weight.neg_()
    assert not torch.equal(layer(inputs()), before)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(inputs()), other.eval()(inputs()))


def test_evaluation_keeps_its_codes_until_something_changes():
    layer = make().eval()
    first = layer.quantized()[0]
    assert layer.quantized()[0] is first
    layer.train()
    assert layer.eval().quantized()[0] is not first


def test_a_copy_does_not_share_the_kept_codes():
    layer = make().eval()
    expected = layer(inputs())
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.neg_()
    assert not torch.equal(twin(inputs()), expected)
    assert torch.equal(layer(inputs()), expected)


def test_hardness_is_hard_by_default_settable_and_not_saved():
    model = converted_model(surrogate=Tanh())
    assert {float(layer.hardness) for layer in bit_layers(model).values()} == {100.0}
    set_hardness(model, torch.tensor(2.5))
    assert {float(layer.hardness) for layer in bit_layers(model).values()} == {2.5}
    assert not [key for key in model.state_dict() if "hardness" in key]
