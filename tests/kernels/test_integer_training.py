"""The integer products of a training step against their oracle, with ==, on every instruction set of this machine."""

import functools

import pytest
import torch

from bitnet_train.errors import KernelError
from bitnet_train.kernels import reference, reference_training
from bitnet_train.kernels.integer_training import (
    forward_product,
    input_gradient,
    int8_product,
    pack_int8_weight,
    pack_latent,
    weight_gradient,
)
from bitnet_train.kernels.isa import available_isas, forced_isa
from bitnet_train.kernels.reference_training import MAX_INT8_INPUTS
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import CODES, ActivationScheme, WeightScheme
from bitnet_train.quant.weight import absmean_scale, quantize
from tests.fixtures.schemes import CODE_SETS, weight_scheme

every_isa = pytest.mark.parametrize("isa", available_isas())
every_weight = pytest.mark.parametrize("name", CODE_SETS)
INT8 = ActivationScheme("int8")
PAIRS = WeightScheme("binary", "group", 1)
SCHEMES = [("tensor", 0), ("row", 0), ("group", 64), ("group", 96)]
SHAPES = [(1, 1, 1), (3, 7, 64), (9, 65, 100), (129, 70, 192), (16, 200, 576), (150, 64, 128)]  # T, N, K


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape, seed=0):
    return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def latent_weight(num_outputs, num_inputs, scheme):
    latent = 0.05 * random(num_outputs, num_inputs, seed=1)
    latent.view(-1)[:2] = torch.tensor([0.0, -0.0])[: latent.numel()]
    return latent, absmean_scale(latent, scheme) + 0.001


def input_gradient_of(dy, w, scale, scheme):
    return reference_training.input_gradient(dy, w, scale, scheme.planes)


def schemes(name, num_inputs):
    for granularity, size in SCHEMES:
        if granularity != "group" or num_inputs % size == 0:
            yield weight_scheme(name, granularity, size or 128)


@functools.cache
def problems(name, num_tokens, num_outputs, num_inputs):
    """(x codes and scale, dy, latent, scale, scheme, bias, y, dx) for every granularity, by the oracle."""
    x, dy = quantize_activation(random(num_tokens, num_inputs), INT8), random(num_tokens, num_outputs, seed=2)
    found = []
    for scheme in schemes(name, num_inputs):
        latent, scale = latent_weight(num_outputs, num_inputs, scheme)
        w, bias = quantize(latent, scale, scheme), random(num_outputs, seed=3) if len(found) % 2 else None
        y = reference.linear(*x, w, scale, bias, scheme.inputs_per_scale(num_inputs), scheme.planes)
        found.append((x, dy, latent, scale, scheme, bias, y, input_gradient_of(dy, w, scale, scheme)))
    return found


@every_isa
@every_weight
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_input_gradient_equal_the_oracle(isa, name, shape):
    for x, dy, latent, scale, scheme, bias, y, dx in problems(name, *shape):
        with forced_isa(isa):
            packed = pack_latent(latent, scale, scheme, INT8)
            assert torch.equal(forward_product(*x, packed, bias), y)
            assert torch.equal(input_gradient(dy, packed), dx)
            only_forward = pack_latent(latent, scale, scheme, INT8, for_backward=False)
            assert torch.equal(forward_product(*x, only_forward, bias), y)


@every_isa
@pytest.mark.parametrize(("num_tokens", "num_outputs", "num_inputs"), [*SHAPES, (128, 16, 16), (257, 33, 95)])
def test_weight_gradient_equals_the_oracle(isa, num_tokens, num_outputs, num_inputs):
    dy, x_scale = random(num_tokens, num_outputs), random(num_tokens, 1, seed=1).abs()
    x = codes(num_tokens, num_inputs, seed=2)
    with forced_isa(isa):
        dw = weight_gradient(dy, x, x_scale)
    assert torch.equal(dw, reference_training.weight_gradient(dy, x, x_scale))


@every_isa
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact(isa, sign):
    num_tokens, num_outputs, num_inputs = 256, 200, 96
    dy, ones = torch.full((num_tokens, num_outputs), 0.3 * sign), torch.ones(num_tokens, 1)
    dy[num_tokens // 2 :] *= -1
    x = torch.full((num_tokens, num_inputs), -128, dtype=torch.int8)
    with forced_isa(isa):
        assert torch.equal(weight_gradient(dy, x, ones), reference_training.weight_gradient(dy, x, ones))
        largest = pack_int8_weight(x, torch.ones(num_tokens))
        assert torch.equal(int8_product(x, ones, largest, None), torch.full((num_tokens, num_tokens), 96.0 * 128 * 128))
    for scheme in (WeightScheme(), *(weight_scheme(name, "group", 32) for name in CODE_SETS)):
        latent, alpha = torch.ones(num_outputs, num_inputs), torch.ones(scheme.scale_shape(num_outputs, num_inputs))
        latent *= CODES[scheme.code_set][-1]
        with forced_isa(isa):
            dx = input_gradient(dy, pack_latent(latent, alpha, scheme, INT8))
        assert torch.equal(dx, input_gradient_of(dy, latent.to(torch.int8), alpha, scheme))


@every_isa
@every_weight
def test_scales_of_any_size_and_sign_are_taken(isa, name):
    scheme, dy = weight_scheme(name, "group", 32), random(20, 70)
    latent, scale = latent_weight(70, 96, scheme)
    scale = scale * torch.logspace(-20, 12, 70).unsqueeze(1)
    scale[3], scale[4, 1], scale[5] = 0, 0, -scale[5]
    with forced_isa(isa):
        dx = input_gradient(dy, pack_latent(latent, scale, scheme, INT8))
    assert torch.equal(dx, input_gradient_of(dy, quantize(latent, scale, scheme), scale, scheme))


@every_isa
@pytest.mark.parametrize(("num_tokens", "num_outputs", "num_inputs"), SHAPES)
def test_an_int8_product_equals_the_oracle(isa, num_tokens, num_outputs, num_inputs):
    x, x_scale = codes(num_tokens, num_inputs), random(num_tokens, 1).abs()
    w, w_scale = codes(num_outputs, num_inputs, seed=1), random(num_outputs, seed=2)
    for bias in (None, random(num_outputs, seed=3)):
        with forced_isa(isa):
            y = int8_product(x, x_scale, pack_int8_weight(w, w_scale), bias)
        assert torch.equal(y, reference_training.int8_product(x, x_scale, w, w_scale, bias))


@every_isa
def test_the_longest_int8_product_is_exact(isa):
    x = torch.full((2, MAX_INT8_INPUTS), -128, dtype=torch.int8)
    with forced_isa(isa):
        y = int8_product(x, torch.ones(2, 1), pack_int8_weight(x[:1], torch.ones(1)), None)
    assert y.tolist() == [[float(MAX_INT8_INPUTS << 14)]] * 2


@every_isa
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_gives_nan_where_it_counts(isa, bad):
    dy, x = random(130, 70), codes(130, 96)
    dy[129, 5] = bad
    latent, scale = latent_weight(70, 96, WeightScheme())
    with forced_isa(isa):
        dx = input_gradient(dy, pack_latent(latent, scale, WeightScheme(), INT8))
        dw = weight_gradient(dy, x, torch.ones(130, 1))
    assert torch.isnan(dx).all(dim=1).tolist() == [t == 129 for t in range(130)]
    assert torch.isnan(dw).all(dim=1).tolist() == [n == 5 for n in range(70)]
    assert int(torch.isnan(dx).sum() + torch.isnan(dw).sum()) == 2 * 96


@every_isa
@every_weight
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_with_its_row(isa, name, bad):
    scheme = weight_scheme(name)
    for row, column in ((3, 0), (66, 99)):
        latent, scale = latent_weight(70, 100, scheme)
        latent[row, column] = bad
        with forced_isa(isa), pytest.raises(KernelError, match=rf"Row {row} of `latent` \[70, 100\].*not finite"):
            pack_latent(latent, scale, scheme, INT8)
    latent, scale = latent_weight(70, 100, scheme)
    scale[1] = bad
    with forced_isa(isa), pytest.raises(KernelError, match=r"Row 1 of `scale` \[70, 1\].*not finite"):
        pack_latent(latent, scale, scheme, INT8)


@every_isa
@every_weight
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(isa, name, threads):
    num_tokens, num_outputs, num_inputs = 280, 200, 576
    dy, x = random(num_tokens, num_outputs), quantize_activation(random(num_tokens, num_inputs, seed=1), INT8)
    scheme, w = weight_scheme(name, "group", 64), codes(num_outputs, num_inputs)
    latent, scale = latent_weight(num_outputs, num_inputs, scheme)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            with forced_isa(isa):
                packed = pack_latent(latent, scale, scheme, INT8)
                y, dx, dw = forward_product(*x, packed, None), input_gradient(dy, packed), weight_gradient(dy, *x)
                found.append((y, dx, dw, int8_product(*x, pack_int8_weight(w, scale[:, 0].contiguous()), None)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@every_isa
def test_views_and_no_tokens_are_taken(isa):
    dy, x, x_scale = random(8, 20)[::2, ::2], codes(8, 30)[::2, ::2], random(8, 2).abs()[::2, :1]
    latent = random(10, 30)[:, ::2]
    scale, none = absmean_scale(latent, WeightScheme()), torch.empty(0, 10)
    with forced_isa(isa):
        packed = pack_latent(latent, scale, WeightScheme(), INT8)
        assert torch.equal(weight_gradient(dy, x, x_scale), reference_training.weight_gradient(dy, x, x_scale))
        assert input_gradient(none, packed).shape == (0, 15)
        assert torch.equal(weight_gradient(none, x[:0], x_scale[:0]), torch.zeros(10, 15))


def test_what_does_not_fit_is_refused():
    latent, scale = latent_weight(6, 8, WeightScheme())
    packed = pack_latent(latent, scale, WeightScheme(), INT8)
    x, x_scale = codes(4, 8), torch.ones(4, 1)
    refused = [
        (r"`latent` must be float32 \[any, any\]", lambda: pack_latent(latent.double(), scale, WeightScheme(), INT8)),
        (r"`scale` must be float32 \[6, any\]", lambda: pack_latent(latent, scale[:5], WeightScheme(), INT8)),
        ("3 scales a row do not divide the 8", lambda: pack_latent(latent, torch.ones(6, 3), WeightScheme(), INT8)),
        (r"`x_codes` must be int8 \[any, 8\]", lambda: forward_product(codes(4, 7), x_scale, packed, None)),
        (r"`bias` must be float32 \[6\]", lambda: forward_product(x, x_scale, packed, torch.ones(5))),
        (r"`dy` must be float32 \[any, 6\]", lambda: input_gradient(random(4, 5), packed)),
        (r"`x_scale` must be float32 \[4, 1\]", lambda: weight_gradient(random(4, 6), x, torch.ones(4))),
        (r"`x_codes` must be int8 \[5, any\]", lambda: weight_gradient(random(5, 6), x, x_scale)),
        (r"`scale` must be float32 \[4\]", lambda: pack_int8_weight(x, torch.ones(4, 1))),
        ("131072 inputs", lambda: pack_latent(torch.ones(2**17, 2), torch.ones(2**17, 2), PAIRS, INT8)),
        ("131072 inputs", lambda: pack_int8_weight(torch.zeros(1, 2**17, dtype=torch.int8), torch.ones(1))),
    ]
    for message, call in refused:
        with pytest.raises(KernelError, match=message):
            call()
