import numpy as np
import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.quant.int8_table import quantize_int16, quantize_table


def table(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_row_has_a_float16_scale_of_its_own_and_reaches_127():
    weight = table(20, 64) * torch.logspace(-3, 3, 20).unsqueeze(1)
    codes, scale = quantize_table(weight)
    assert (codes.dtype, codes.shape) == (torch.int8, weight.shape)
    assert (scale.dtype, scale.shape) == (torch.float16, (20,))
    assert torch.equal(scale, (weight.abs().amax(1) / 127).half())
    assert torch.all(codes.abs().amax(1) >= 126)  # 126 where the scale was rounded up
    alone_codes, alone_scale = quantize_table(weight[3:4])
    assert torch.equal(alone_codes[0], codes[3])
    assert torch.equal(alone_scale[0], scale[3])


def test_a_weight_is_off_by_half_a_scale_or_by_the_rounding_of_the_scale_itself():
    weight = table(200, 64)
    codes, scale = quantize_table(weight)
    steps = scale.float().unsqueeze(1)
    assert torch.all((codes * steps - weight).abs() <= steps * (0.5 + 127 * 2.0**-11))


def test_codes_round_half_to_even_and_are_symmetric():
    codes, scale = quantize_table(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]]))
    assert float(scale) == 1.0
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -127]]


def test_a_row_of_zeros_and_one_of_tiny_weights_keep_a_scale_above_zero():
    codes, scale = quantize_table(torch.tensor([[0.0, -0.0], [1e-9, -1e-9], [1e-7, -5e-8]]))
    assert scale.tolist() == [2.0**-24] * 3
    assert codes.tolist() == [[0, 0], [0, 0], [2, -1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7])
def test_a_row_that_no_float16_scale_can_hold_is_named(value):
    weight = torch.zeros(3, 4)
    weight[2, 1] = value
    with pytest.raises(ConversionError, match=r"Row 2 of a 3 x 4 table .* Leave `export.embedding`"):
        quantize_table(weight)


def test_inputs_reach_32767_and_are_off_by_half_a_step():
    x = table(16, 256)
    codes, scale = quantize_int16(x)
    assert (codes.dtype, scale.shape) == (torch.int16, (16, 1))
    assert torch.all(codes.abs().amax(-1) == 32767)
    assert torch.all((codes * scale - x).abs() <= scale * (0.5 + 32767 * 2.0**-22))


def test_the_input_scale_is_two_quotients_each_rounded_once():
    x = table(1000, 8)
    inverse = np.float32(32767) / np.maximum(x.abs().amax(-1, keepdim=True).numpy(), np.float32(1e-5))
    assert np.array_equal(quantize_int16(x)[1].numpy(), np.float32(1) / inverse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_token_that_is_not_finite_has_no_codes_and_no_scale(value):
    x = torch.ones(2, 8)
    x[0, 3] = value
    codes, scale = quantize_int16(x)
    assert not codes[0].any()
    assert torch.isnan(scale[0])
    assert torch.all(codes[1] == 32767)
