"""One step of autograd against the composition that it replaces, bit for bit."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from bitnet_train.kernels import reference_training
from bitnet_train.model import quantized_linear as subject
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.quantized_linear import MIN_TOKENS, training_products
from bitnet_train.quant.activation import fake_quantize_activation, quantize_activation
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES, Clipped, Identity
from tests.fixtures.schemes import CODE_SETS, weight_scheme

NUM_INPUTS, NUM_OUTPUTS = 96, 40
WEIGHTS = [
    weight_scheme(name, grain, 16, learnable)
    for name, grain, learnable in itertools.product(CODE_SETS, GRANULARITIES, (True, False))
]
EPS = 2.0**-24


def make(weight=None, activation="int8", surrogate=None, bias=True):
    torch.manual_seed(0)
    linear = nn.Linear(NUM_INPUTS, NUM_OUTPUTS, bias=bias)
    layer = BitLinear.from_linear(
        linear, weight or WeightScheme(), ActivationScheme(activation), surrogate or Identity()
    )
    return layer.train()


def inputs(dtype=torch.float32):
    return torch.randn(2, 33, NUM_INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)


def composed(layer, x):
    weight = layer.effective_weight()
    x = fake_quantize_activation(x, layer.activation)
    if torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, layer.bias)
    return F.linear(x, weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))


def gradients(layer, function, x, autocast):
    """(y, dx, dW, d_bias, d_scale), None where there is none."""
    layer.zero_grad()
    x = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = function(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    y.backward(upstream.to(y.dtype))
    grads = [None if p is None else p.grad for p in (layer.weight, layer.bias, layer.scale)]
    return [y.detach(), x.grad, *(None if grad is None else grad.clone() for grad in grads)]


def assert_equal(actual, expected):
    *bits, scale = zip(actual, expected, strict=True)
    for ours, theirs in bits:
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs))
    if scale[1] is not None:
        # Terms dW_eff * code / sqrt(numel), at most N K of them summed in two orders: each sum is off by at most
        # N K eps sum |term|; dW_eff sums 66 products of |x_q| < 4.5 and |dy| < 4.5.
        terms = NUM_OUTPUTS * NUM_INPUTS
        bound = 2 * terms * EPS * terms**0.5 * 66 * 4.5**2
        torch.testing.assert_close(scale[0], scale[1], rtol=0, atol=bound)
        torch.testing.assert_close(scale[0], scale[1], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_value_and_gradients_are_those_of_the_composition(weight, name, hard, autocast):
    layer = make(weight, surrogate=SURROGATES[name]())
    if not hard:
        layer.hardness.fill_(0.4)
    actual = gradients(layer, layer, inputs(), autocast)
    assert_equal(actual, gradients(layer, lambda x: composed(layer, x), inputs(), autocast))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("activation", ACTIVATION_SCHEMES)
def test_every_activation_and_input_dtype_gives_the_bits_of_the_composition(activation, autocast, bias, dtype):
    layer = make(activation=activation, bias=bias)
    actual = gradients(layer, layer, inputs(dtype), autocast)
    assert_equal(actual, gradients(layer, lambda x: composed(layer, x), inputs(dtype), autocast))


def many_tokens():
    return torch.randn(2, MIN_TOKENS // 2 + 1, NUM_INPUTS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_with_an_integer_forward_the_value_is_that_of_evaluation_and_the_gradients_those_of_the_composition(
    weight, name
):
    layer, x = make(weight, surrogate=SURROGATES[name]()), many_tokens()
    with training_products("forward"):
        value, *grads = gradients(layer, layer, x, False)
    composed_value, *expected = gradients(layer, lambda x: composed(layer, x), x, False)
    assert_equal([value, *grads], [layer.eval()(x), *expected])
    # The same products in another order: off by fewer than K + 8 roundings of at most the sum of their magnitudes.
    magnitudes = NUM_INPUTS * x.abs().max() * layer.effective_weight().detach().abs().max() + 1
    assert float((value - composed_value).abs().max()) <= (NUM_INPUTS + 8) * EPS * float(magnitudes)


@pytest.mark.parametrize("activation", [name for name in ACTIVATION_SCHEMES if name != "none"])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_in_integers_the_value_is_that_of_evaluation_and_the_gradients_those_of_the_oracle(weight, name, activation):
    layer, x = make(weight, activation, SURROGATES[name]()), many_tokens()
    with training_products("integer"):
        value, *grads = gradients(layer, layer, x, False)
    assert torch.equal(value, layer.eval()(x))
    rows = x.reshape(-1, NUM_INPUTS)
    dy = torch.randn(value.shape, generator=torch.Generator().manual_seed(2)).reshape(-1, NUM_OUTPUTS)
    codes, scale = layer.quantized()
    dw = reference_training.weight_gradient(dy, *quantize_activation(rows, layer.activation))
    d_latent, d_scale = layer.surrogate.gradients(
        dw, layer.weight, scale, layer.weight_scheme, layer.hardness, numel=codes.numel(), wanted=(True, True)
    )
    dx = reference_training.input_gradient(dy, codes, scale, weight.planes).reshape(x.shape)
    expected = [dx, d_latent, dy.sum(dim=0), d_scale if layer.scale is not None else None]
    assert_equal([value, *grads], [value, *expected])


def test_a_latent_that_is_made_has_integer_gradients_and_no_float_weight_is_kept_for_them():
    layer, x = make(), many_tokens()
    latent = layer.weight + 0.0
    with training_products("integer"):
        plain = gradients(layer, layer, x, False)
        made = gradients(layer, lambda x: layer(x, layer.weight + 0.0), x, False)
        _, saved = kept_for_the_backward(lambda: layer(x.requires_grad_(True), latent))
    assert all(torch.equal(one, other) for one, other in zip(plain[:3], made[:3], strict=True))
    assert not [tensor for tensor in saved if tensor.shape == layer.weight.shape]


@pytest.mark.parametrize("products", ["forward", "integer"])
def test_few_tokens_a_soft_weight_and_a_float_input_are_multiplied_in_floats(products):
    few, x, soft = many_tokens()[:1, : MIN_TOKENS - 1], many_tokens(), make(surrogate=SURROGATES["tanh"]())
    soft.hardness.fill_(0.4)
    plain = make(activation="none")
    with training_products(products):
        assert torch.equal(make()(few), composed(make(), few))
        assert torch.equal(soft(x), composed(soft, x))
        assert torch.equal(plain(x), composed(plain, x))
        assert not torch.equal(make()(x), composed(make(), x))


def test_an_integer_forward_alone_is_for_float32_and_for_latents_that_are_parameters():
    layer, x = make(), many_tokens()
    with training_products("forward"):
        assert torch.equal(layer(x, layer.weight + 0.0), composed(layer, x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), composed(layer, x))


def test_under_autocast_integers_give_the_value_and_gradients_rounded_to_its_type():
    layer, x = make(), many_tokens()
    with training_products("integer"):
        plain, rounded = gradients(layer, layer, x, False), gradients(layer, layer, x, True)
    assert rounded[0].dtype == torch.bfloat16
    assert torch.equal(rounded[0], plain[0].bfloat16())
    similar = torch.cosine_similarity(rounded[1].flatten(), plain[1].flatten(), dim=0)
    assert float(similar) > 0.999, "dy is rounded to bfloat16, 2^-9 of each, before it is rounded to 8 bits"


def test_several_steps_of_training_have_the_losses_of_the_composition():
    def losses(forward_of):
        layer, optimizer = make(surrogate=Clipped(1.0)), None
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
        found = []
        for _ in range(8):
            for rows in inputs().split(1):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = forward_of(layer)(rows).float().square().mean()
                loss.backward()
                found.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
        return found

    assert losses(lambda layer: layer) == losses(lambda layer: lambda x: composed(layer, x))


def test_layers_with_the_same_input_share_its_codes_until_it_changes(monkeypatch):
    calls = []
    quantize = subject.quantize_tokens
    monkeypatch.setattr(subject, "quantize_tokens", lambda *args: calls.append(args) or quantize(*args))
    layer, other, x = make(), make(WeightScheme("ternary")), inputs()
    first = layer(x)
    other(x)
    assert len(calls) == 1
    x.mul_(-1)
    assert not torch.equal(layer(x), first)
    assert len(calls) == 2


def test_layers_of_different_activations_do_not_share_codes():
    x = inputs()
    int8, int4 = make(), make(activation="int4")
    int8(x)
    assert torch.equal(int4(x), make(activation="int4")(inputs()))


def kept_for_the_backward(forward):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        y = forward()
    return y, saved


def test_no_float_input_and_no_second_weight_is_kept_for_the_backward():
    layer = make(WeightScheme(learnable_scale=True), surrogate=Clipped(1.0))
    with torch.autocast("cpu", torch.bfloat16):
        _, saved = kept_for_the_backward(lambda: layer(inputs().requires_grad_(True)))
    assert {tensor.dtype for tensor in saved if tensor.numel() == 66 * NUM_INPUTS} == {torch.int8}
    of_weight = [tensor for tensor in saved if tensor.shape == layer.weight.shape]
    assert {tensor.data_ptr() for tensor in of_weight} == {layer.weight.data_ptr()}


def test_a_latent_that_is_made_is_let_go_and_its_quantised_weight_kept():
    layer = make()
    latent = layer.weight + 0.0
    with torch.autocast("cpu", torch.bfloat16):
        y, saved = kept_for_the_backward(lambda: layer(inputs().requires_grad_(True), latent))
    assert [tensor.dtype for tensor in saved if tensor.shape == layer.weight.shape] == [torch.bfloat16]
    y.float().sum().backward()
    assert bool(layer.weight.grad.abs().sum() > 0)


def test_a_frozen_layer_keeps_nothing_but_its_weight_and_still_passes_the_gradient_on():
    layer = make(bias=False).requires_grad_(False)
    x = inputs().requires_grad_(True)
    y, saved = kept_for_the_backward(lambda: layer(x))
    y.sum().backward()
    assert sum(tensor.numel() for tensor in saved) <= layer.weight.numel() + layer.weight.shape[0] + 1
    assert layer.weight.data_ptr() in {tensor.data_ptr() for tensor in saved}
    assert bool(x.grad.abs().sum() > 0)


def test_gradient_checkpointing_changes_nothing():
    layer = make(WeightScheme(learnable_scale=True))
    plain = gradients(layer, layer, inputs(), True)
    again = gradients(layer, lambda x: checkpoint(layer, x, use_reentrant=False), inputs(), True)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_a_fixed_scale_follows_the_latents_after_a_step():
    layer = make()
    layer(inputs())
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(layer(inputs()), copy.deepcopy(layer)(inputs()))
    assert torch.equal(layer.rounded_scale(), layer.quantized()[1])
