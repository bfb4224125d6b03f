from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.bitnet import pack_weights, unpack_weights

from bitnet_train.errors import FormatError
from bitnet_train.formats.hf_bitnet import from_weight_scale, pack_strided, to_weight_scale, unpack_strided

pytestmark = pytest.mark.usefixtures("uncompiled")

shapes = st.tuples(st.integers(1, 9).map(lambda quarter: 4 * quarter), st.integers(1, 70))
float16_scales = st.floats(2.0**-14, 65504, width=16)
float32_scales = st.floats(2.0**-60, 2.0**60, width=32)


def codes_of(shape: tuple[int, int], lowest: int = -1, step: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    choices = torch.tensor(list(range(lowest, 2, step)), dtype=torch.int8)
    return choices[torch.randint(len(choices), shape, generator=generator)]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.integers(0, 99))
def test_the_bytes_are_those_of_transformers(shape, binary, seed):
    codes = codes_of(shape, step=2 if binary else 1, seed=seed)
    assert torch.equal(pack_strided(codes), pack_weights(codes.clone()))  # theirs changes its argument
    assert torch.equal(unpack_weights(pack_strided(codes), torch.int8), codes)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 99))
def test_codes_come_back(shape, seed):
    codes = codes_of(shape, seed=seed)
    before = codes.clone()
    assert torch.equal(unpack_strided(pack_strided(codes)), codes)
    assert torch.equal(codes, before)


@pytest.mark.parametrize("shape", [(0, 7), (8, 0), (0, 0)])
def test_a_weight_of_no_rows_or_no_inputs_comes_back(shape):
    assert unpack_strided(pack_strided(torch.empty(shape, dtype=torch.int8))).shape == shape


def test_rows_are_a_quarter_of_the_matrix_apart():
    codes = torch.tensor([[-1], [0], [0], [0], [1], [0], [-1], [1]], dtype=torch.int8)
    assert pack_strided(codes).tolist() == [[0b00_10_01_00], [0b10_01_01_01]]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_rows_that_are_no_multiple_of_four_are_refused(rows):
    with pytest.raises(FormatError, match=f"{rows} rows are not a multiple of 4"):
        pack_strided(torch.ones((rows, 8), dtype=torch.int8))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((4, 2), 2, dtype=torch.int8), "values from 2 to 2"),
        (torch.ones((4, 2), dtype=torch.int32), "must be int8"),
        (torch.ones(4, dtype=torch.int8), "must be int8"),
    ],
)
def test_what_are_no_codes_is_refused(codes, message):
    with pytest.raises(FormatError, match=message):
        pack_strided(codes)


def test_bits_that_stand_for_no_code_are_refused():
    with pytest.raises(FormatError, match="bits 11"):
        unpack_strided(torch.tensor([[0b01_11_01_01]], dtype=torch.uint8))
    with pytest.raises(FormatError, match="must be uint8"):
        unpack_strided(torch.ones((1, 1), dtype=torch.int8))


@settings(max_examples=300, deadline=None)
@given(float16_scales)
def test_a_float16_scale_comes_back_exactly_in_both_conventions(scale):
    for linear_class in ("autobitlinear", "bitlinear"):
        stored = to_weight_scale(scale, linear_class)
        assert stored == np.float32(stored)
        assert from_weight_scale(stored, linear_class) == scale


def test_the_two_conventions_are_reciprocal():
    assert to_weight_scale(0.25, "autobitlinear") == 0.25
    assert to_weight_scale(0.25, "bitlinear") == 4.0
    assert from_weight_scale(4.0, "bitlinear") == 0.25


@settings(max_examples=300, deadline=None)
@given(float32_scales)
def test_a_float32_scale_comes_back_exactly_or_is_refused(scale):
    try:
        stored = to_weight_scale(scale, "bitlinear")
    except FormatError:
        stored = None
    assert stored is None or from_weight_scale(stored, "bitlinear") == scale


def test_a_scale_that_is_no_reciprocal_is_refused():
    with pytest.raises(FormatError, match="`linear_class=bitlinear` stores reciprocals"):
        to_weight_scale(float(np.nextafter(np.float32(1.75), np.float32(2))), "bitlinear")


@settings(max_examples=300, deadline=None)
@given(st.integers(100 << 7, 150 << 7).map(lambda bits: np.uint32(bits << 16).view(np.float32)))
def test_a_bfloat16_weight_scale_that_was_read_is_written_again(weight_scale):
    read = from_weight_scale(float(weight_scale), "bitlinear")
    assert to_weight_scale(read, "bitlinear") == weight_scale


@pytest.mark.parametrize("weight_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_scale_that_is_no_number_above_zero_is_refused(weight_scale):
    with pytest.raises(FormatError, match="`weight_scale` must be a finite number above 0"):
        from_weight_scale(weight_scale, "bitlinear")
