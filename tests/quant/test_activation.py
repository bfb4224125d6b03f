import math

import numpy as np
import pytest
import torch

from bitnet_train.quant.activation import fake_quantize_activation, quantize_activation
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, ActivationScheme

INTEGER = [ActivationScheme(name) for name in ACTIVATION_SCHEMES if name != "none"]


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", INTEGER)
def test_every_token_has_its_own_scale(scheme):
    x = tokens(2, 3, 40)
    codes, scale = quantize_activation(x, scheme)
    assert (codes.dtype, codes.shape) == (torch.int8, x.shape)
    assert (scale.dtype, scale.shape) == (torch.float32, (2, 3, 1))
    alone_codes, alone_scale = quantize_activation(x[1, 2], scheme)
    assert torch.equal(alone_codes, codes[1, 2])
    assert torch.equal(alone_scale, scale[1, 2])


@pytest.mark.parametrize(("name", "largest"), [("int8", 127), ("int4", 7)])
def test_a_code_is_within_half_a_step_and_the_largest_magnitude_gets_the_largest_code(name, largest):
    x = tokens(16, 256)
    codes, scale = quantize_activation(x, ActivationScheme(name))
    assert torch.all(codes.abs().amax(-1) == largest)
    assert torch.all((codes * scale - x).abs() <= scale * (0.5 + largest * 2.0**-22))


@pytest.mark.parametrize(("name", "largest"), [("int8", 127), ("int4", 7)])
def test_the_scale_is_two_quotients_each_rounded_once(name, largest):
    x = tokens(1000, 8)
    _, scale = quantize_activation(x, ActivationScheme(name))
    inverse = np.float32(largest) / x.abs().amax(-1, keepdim=True).numpy()
    assert np.array_equal(scale.numpy(), np.float32(1) / inverse)


def test_int4_rounds_half_to_even():
    x = torch.tensor([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5, -7.0]])
    assert quantize_activation(x, ActivationScheme("int4"))[0].tolist() == [[7, 0, 2, 2, 0, -2, -7]]


def test_int8_rounds_half_to_even():
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    assert quantize_activation(x, ActivationScheme("int8"))[0].tolist() == [[127, 0, 2, 2, 0, -2]]


def test_sign_takes_zero_as_plus_one_and_the_mean_magnitude_as_scale():
    x = torch.tensor([[0.0, -0.0, -3.0, 1.0]])
    codes, scale = quantize_activation(x, ActivationScheme("sign"))
    assert codes.tolist() == [[1, 1, -1, 1]]
    assert float(scale) == 1.0


def test_the_scale_of_sign_is_the_exact_mean_rounded_once_whatever_the_order():
    x = tokens(64, 4097, seed=3)
    x[:, 0] = 1e7  # a float32 sum would lose the small ones behind it
    scheme = ActivationScheme("sign")
    _, scale = quantize_activation(x, scheme)
    assert scale[:, 0].tolist() == [float(np.float32(math.fsum(map(abs, row)) / len(row))) for row in x.tolist()]
    assert torch.equal(quantize_activation(x.flip(-1), scheme)[1], scale)


@pytest.mark.parametrize("scheme", INTEGER)
def test_a_zero_token_stays_finite_and_zero(scheme):
    value = fake_quantize_activation(torch.zeros(2, 8), scheme)
    assert torch.equal(value, torch.zeros(2, 8))


@pytest.mark.parametrize("scheme", INTEGER)
def test_a_nan_input_stays_visible(scheme):
    x = torch.ones(2, 8)
    x[0, 3] = float("nan")
    _, scale = quantize_activation(x, scheme)
    assert torch.isnan(scale[0])
    assert torch.isfinite(scale[1])


@pytest.mark.parametrize("scheme", INTEGER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fake_quantised_value_is_scale_times_codes_in_the_input_dtype(scheme, dtype):
    x = tokens(5, 64).to(dtype)
    codes, scale = quantize_activation(x, scheme)
    value = fake_quantize_activation(x, scheme)
    assert value.dtype == dtype
    assert torch.equal(value, (codes * scale).to(dtype))


@pytest.mark.parametrize("name", ACTIVATION_SCHEMES)
def test_the_gradient_passes_unchanged(name):
    x = tokens(5, 64).requires_grad_(True)
    upstream = tokens(5, 64, seed=1)
    fake_quantize_activation(x, ActivationScheme(name)).backward(upstream)
    assert x.grad is not None
    assert torch.equal(x.grad, upstream)


def test_none_returns_the_input_itself():
    x = tokens(5, 64)
    assert fake_quantize_activation(x, ActivationScheme("none")) is x
