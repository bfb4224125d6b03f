from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.formats.narrow_codes import narrow_shapes, pack_narrow, unpack_narrow
from bitnet_train.quant.narrow_table import quantize_narrow

BITS = (4, 5)


def codes_of(num_inputs: int, bits: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(num_inputs)
    weight = torch.randn(2100, num_inputs, generator=generator) * torch.logspace(-3, 0, num_inputs)
    return quantize_narrow(weight, bits)[0].numpy()


def test_the_bytes_of_a_row_are_those_of_the_example():
    planes, multipliers = pack_narrow(np.array([[14, -14, 2, 0]], np.int8), 4)
    assert planes.tolist() == [[[0b0111]], [[0b0001]], [[0b0001]], [[0b1101]]]
    assert multipliers.tolist() == [[0x01]]


def test_the_bytes_of_a_row_of_three_groups_in_5_bits():
    row = np.zeros((1, 66), np.int8)
    row[0, :3] = 120, -8, 0  # m = 8, c = 15, -1, 0; c + 16 = 31, 15, 16
    row[0, 32] = -15  # m = 1, c + 16 = 1
    row[0, 64:] = 30, -2  # m = 2, c = 15, -1; c + 16 = 31, 15
    planes, multipliers = pack_narrow(row, 5)
    ones, zeros = [0xFF] * 8, [0] * 8
    low = [0b011, 0, 0, 0, 0b1, 0, 0, 0]
    next_bits = [0b011, *zeros[1:]]
    high = [0b11111101, *ones[1:4], 0b11111110, *ones[5:]]
    assert planes[:, 0].tolist() == [[*low, 0b11], *([[*next_bits, 0b11]] * 3), [*high, 0b01]]
    assert multipliers.tolist() == [[0x07, 0x01]]


@pytest.mark.parametrize("num_inputs", [1, 7, 8, 9, 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize("bits", BITS)
def test_codes_come_back(bits, num_inputs):
    codes = codes_of(num_inputs, bits)
    planes, multipliers = pack_narrow(codes, bits)
    assert (planes.shape, multipliers.shape) == narrow_shapes(codes.shape, bits)
    assert planes.dtype == multipliers.dtype == np.uint8
    assert np.array_equal(unpack_narrow(planes, multipliers, num_inputs, bits), codes)


@pytest.mark.parametrize("bits", BITS)
def test_bits_after_the_last_input_are_refused(bits):
    planes, multipliers = pack_narrow(codes_of(37, bits), bits)
    planes[1, 2, 4] |= 1 << 5
    with pytest.raises(FormatError, match="codes: bits after the last input are not 0"):
        unpack_narrow(planes, multipliers, 37, bits)


@pytest.mark.parametrize("bits", BITS)
def test_the_code_that_no_table_has_is_refused(bits):
    planes, multipliers = pack_narrow(codes_of(37, bits), bits)
    planes[:, 2099, 0] = 0
    with pytest.raises(FormatError, match=f"codes: one is {-(2 ** (bits - 1))}, which {bits} bits hold and no table"):
        unpack_narrow(planes, multipliers, 37, bits)


@pytest.mark.parametrize("bits", BITS)
def test_half_a_byte_after_the_last_group_is_refused(bits):
    planes, multipliers = pack_narrow(codes_of(70, bits), bits)
    multipliers[1, 1] |= 0x10
    with pytest.raises(FormatError, match="multipliers: bits after the last group are not 0"):
        unpack_narrow(planes, multipliers, 70, bits)


def test_a_multiplier_above_8_is_refused_in_5_bits():
    planes, multipliers = pack_narrow(codes_of(64, 5), 5)
    multipliers[0, 0] = 0x78
    with pytest.raises(FormatError, match="multipliers: one is above 8"):
        unpack_narrow(planes, multipliers, 64, 5)


@pytest.mark.parametrize("bits", BITS)
def test_a_multiplier_larger_than_its_group_needs_is_refused(bits):
    planes, multipliers = pack_narrow(np.zeros((1, 8), np.int8), bits)
    multipliers[0, 0] = 1
    with pytest.raises(FormatError, match="multipliers: one is larger than its group needs"):
        unpack_narrow(planes, multipliers, 8, bits)


@pytest.mark.parametrize("row", [[15, 1], [113, 0], [127, 127]])
def test_codes_that_a_group_cannot_have_are_not_packed(row):
    with pytest.raises(FormatError, match="These are no codes of a table in 4 bits"):
        pack_narrow(np.array([row], np.int8), 4)


def test_tensors_of_another_shape_are_refused():
    planes, multipliers = pack_narrow(codes_of(32, 4), 4)
    with pytest.raises(FormatError, match=r"of 33 inputs in 4 bits must be uint8 \[4, 2100, 5\] and \[2100, 1\]"):
        unpack_narrow(planes, multipliers, 33, 4)
    with pytest.raises(FormatError, match=r"must be uint8 .* not int8"):
        unpack_narrow(planes.view(np.int8), multipliers, 32, 4)
