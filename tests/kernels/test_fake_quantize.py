"""The compiled element-wise half of a training step against torch: equal bits, but for sums taken in another order."""

import itertools

import pytest
import torch

from bitnet_train.kernels.fake_quantize import (
    dequantize_tokens,
    effective_weight,
    quantize_codes,
    quantize_tokens,
    weight_gradients,
)
from bitnet_train.kernels.isa import available_isas, forced_isa
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, CODES, GRANULARITIES, ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped, Identity, Tanh
from bitnet_train.quant.weight import absmean_scale
from tests.fixtures.schemes import CODE_SETS, weight_scheme

ISAS = available_isas()[:-1]
FLOATS = (torch.float32, torch.bfloat16)
SCHEMES = [weight_scheme(name, grain, 8) for name, grain in itertools.product(CODE_SETS, GRANULARITIES)]
SHAPES = [(1, 128), (7, 64), (5, 1000), (64, 576)]
SURROGATES = (Identity(), Clipped(1.0), Clipped(1.3), Tanh(1.0))


def fitting(surrogates, scheme):
    """The estimators that a scheme has: tanh has no steps for several planes."""
    return [surrogate for surrogate in surrogates if scheme.planes == 1 or surrogate.name != "tanh"]


every_isa = pytest.mark.parametrize("isa", ISAS)
compiled = pytest.mark.skipif(not ISAS, reason="the extension is not built")
EPS = 2.0**-24


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weight(shape, scheme):
    """Latents with zeros of both signs, and with values on the borders between codes, and their scale."""
    w = 0.05 * random(*shape)
    scale = absmean_scale(w, scheme)
    borders = torch.tensor([0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 1.3, -1.3, 2, -2, 4, -4, 5.2, -5.2, 6, -6])
    w[0, :16] = borders * scale[0, 0]
    w[-1, -2:] = torch.tensor([0.0, -0.0])
    scale[-1, -1] = 0.0 if scale.numel() > 1 else scale[-1, -1]
    return w, scale


def on(isa, function, *args):
    with forced_isa(isa):
        return function(*args)


def both(isa, function):
    return on(isa, function), on("reference", function)


@compiled
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_effective_weight_has_the_bits_of_torch(scheme, dtype):
    surrogates = fitting((Identity(), Tanh(1.0)), scheme)  # once hard, no value hangs on a clip
    for shape, surrogate in itertools.product(SHAPES, surrogates):
        args = (*weight(shape, scheme), scheme, surrogate, torch.tensor(surrogate.hard), dtype)
        expected = on("reference", effective_weight, *args)
        for isa in ISAS:
            actual = on(isa, effective_weight, *args)
            assert actual.dtype == dtype
            assert torch.equal(actual, expected), (isa, shape, surrogate)


@compiled
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_latent_gradient_has_the_bits_of_torch_and_a_scale_gradient_its_sum_in_another_order(scheme, dtype):
    for shape, surrogate in itertools.product(SHAPES, fitting(SURROGATES, scheme)):
        (w, scale), grad = weight(shape, scheme), random(*shape, seed=1).to(dtype)
        args = (w, scale, scheme, surrogate, torch.tensor(surrogate.hard), (True, True))
        expected = on("reference", weight_gradients, grad.clone(), *args)
        # Two sums of n float32 terms, each within n eps sum |term| of the exact one.
        terms = w.numel() // scale.numel()
        largest = CODES[scheme.code_set][-1]
        bound = 2 * terms * EPS * largest * float(grad.float().abs().sum()) / w.numel() ** 0.5
        for isa in ISAS:
            d_latent, d_scale = on(isa, weight_gradients, grad.clone(), *args)
            assert torch.equal(d_latent, expected[0]), (isa, shape, surrogate)
            assert bool(((d_scale - expected[1]).abs() <= bound).all()), (isa, shape, surrogate)
            torch.testing.assert_close(d_scale, expected[1], rtol=1e-4, atol=1e-6)


@every_isa
def test_only_the_wanted_gradients_are_computed(isa):
    w, scale = weight((7, 64), SCHEMES[0])
    for wanted in itertools.product((True, False), repeat=2):
        with forced_isa(isa):
            found = weight_gradients(w.clone(), w, scale, SCHEMES[0], Clipped(1.0), torch.tensor(1.0), wanted)
        assert tuple(part is not None for part in found) == wanted


@every_isa
@pytest.mark.parametrize("scheme", [weight_scheme(name) for name in CODE_SETS])
def test_a_latent_that_is_not_finite_shows(isa, scheme):
    w, scale = weight((7, 64), scheme)
    w[2, 3], w[3, 5] = float("nan"), float("inf")
    with forced_isa(isa):
        value = effective_weight(w, scale, scheme, Identity(), torch.tensor(1.0), torch.bfloat16)
    assert bool(torch.isnan(value[2, 3]))
    assert int(torch.isfinite(value).logical_not().sum()) == 2


@every_isa
@pytest.mark.parametrize(("x_dtype", "dtype"), list(itertools.product(FLOATS, FLOATS)))
@pytest.mark.parametrize("name", [name for name in ACTIVATION_SCHEMES if name != "none"])
def test_token_codes_scales_and_values_have_the_bits_of_torch(isa, name, x_dtype, dtype):
    x = random(33, 577).to(x_dtype)
    x[3] = 0
    actual, expected = both(isa, lambda: quantize_tokens(x, ActivationScheme(name), dtype))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(actual, expected, strict=True))
    with forced_isa(isa):
        assert torch.equal(dequantize_tokens(*actual[:2], x_dtype, dtype), actual[2])
        for codes_or_scale, same in zip(quantize_codes(x, ActivationScheme(name)), actual, strict=False):
            assert torch.equal(codes_or_scale, same)


@every_isa
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(isa, threads):
    w, scale = weight((512, 576), WeightScheme())
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            with forced_isa(isa):
                grads = weight_gradients(
                    w.clone(), w, scale, WeightScheme(), Clipped(1.0), torch.tensor(1.0), (True, True)
                )
                found.append((effective_weight(w, scale, WeightScheme(), Identity(), torch.tensor(1.0)), *grads))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@every_isa
def test_arrays_that_do_not_fit_are_refused(isa):
    w = random(7, 64)
    with forced_isa(isa), pytest.raises(ValueError, match=r"scales \[5, 1\] do not fit a weight of 7 x 64"):
        effective_weight(w, torch.ones(5, 1), WeightScheme(), Identity(), torch.tensor(1.0))
