"""ggml's blocks: bytes worked out by hand, the `gguf` package's own, round trips, and refusals."""

from __future__ import annotations

from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_train.errors import FormatError
from bitnet_train.formats.ggml import (
    GGML_TYPES,
    SCHEME_CODES,
    decode,
    dequantize_blocks,
    encode,
    encode_planes,
    ggml_type,
    why_not,
)
from bitnet_train.formats.planes import pack_planes

HALF = bytes.fromhex("0038")  # 0.5 as float16, little-endian
FITS = [
    (name, scheme)
    for name, kind in GGML_TYPES.items()
    for scheme, codes in SCHEME_CODES.items()
    if set(codes) <= set(kind.codes)
]


def random_codes(values, rows, inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(values, dtype=torch.int8)[torch.randint(len(values), (rows, inputs), generator=generator)]


def one_row(codes, type_name, scale=0.5):
    return encode(torch.tensor([codes], dtype=torch.int8), torch.tensor([[scale]]), type_name).numpy()[0].tobytes()


def layer(name="binary", granularity="row", group_size=128, num_inputs=256):
    scheme = SimpleNamespace(code_set=name, title=name, granularity=granularity, group_size=group_size)
    return SimpleNamespace(scheme=scheme, num_inputs=num_inputs)


def test_q1_0_is_a_scale_and_a_bit_a_weight_lowest_first():
    codes = [-1] * 128
    codes[0] = codes[9] = codes[127] = 1
    assert one_row(codes, "q1_0") == HALF + bytes([0b1, 0b10]) + bytes(13) + bytes([0b10000000])


def test_q2_0_is_a_scale_and_two_bits_a_weight_lowest_first():
    codes = [0] * 64
    codes[:4] = [-1, 0, 1, 2]
    assert one_row(codes, "q2_0") == HALF + bytes([0b11_10_01_00]) + bytes([0b01_01_01_01]) * 15


def test_tq2_0_holds_every_32nd_weight_in_one_byte_and_the_scale_last():
    codes = [0] * 256
    codes[0], codes[32], codes[64], codes[96], codes[129] = -1, 1, 0, 1, 1
    blocks = one_row(codes, "tq2_0")
    assert blocks[0] == 0b10_01_10_00
    assert blocks[1] == 0b01_01_01_01
    assert blocks[33] == 0b01_01_01_10  # weight 129 is the second of the second half
    assert blocks[64:] == HALF


def test_tq1_0_is_base_three_scaled_to_a_byte_and_the_scale_last():
    codes = [-1] * 256
    codes[0] = 1  # most significant digit of byte 0: 2 * 81
    codes[160 + 16] = 0  # second digit of byte 32: 1 * 27
    codes[240 + 12] = 1  # last of four digits of byte 48: 2 * 3
    blocks = one_row(codes, "tq1_0")
    assert blocks[0] == -(-162 * 256 // 243)
    assert blocks[32] == -(-27 * 256 // 243)
    assert blocks[48] == -(-6 * 256 // 243)
    assert set(blocks[1:32] + blocks[33:48] + blocks[49:52]) == {0}
    assert blocks[52:] == HALF


def test_q4_0_is_a_scale_and_two_halves_of_16_bytes_lowest_first():
    codes = [-7, 7] + [1] * 14 + [-3, 5] + [-1] * 14
    assert one_row(codes, "q4_0") == HALF + bytes([0x51, 0xDF]) + bytes([0x79]) * 14


def test_q5_0_is_a_scale_a_fifth_bit_of_every_weight_and_the_others_as_in_q4_0():
    codes = [-15, 15] + [1] * 14 + [-3, 5] + [-1] * 14
    high_bits = bytes([0b1111_1110, 0xFF, 0b10, 0])
    assert one_row(codes, "q5_0") == HALF + high_bits + bytes([0xD1, 0x5F]) + bytes([0xF1]) * 14


@pytest.mark.parametrize(("scheme", "type_name"), [("2-plane", "q4_0"), ("3-plane", "q4_0"), ("4-plane", "q5_0")])
def test_the_gguf_package_reads_codes_of_several_planes_as_they_are(scheme, type_name):
    codes, scale = random_codes(SCHEME_CODES[scheme], 7, 128), torch.rand(7, 4).half().float()
    blocks = encode(codes, scale, type_name)
    dense = codes.float() * scale.repeat_interleave(32, dim=1)
    kind = gguf.GGMLQuantizationType[type_name.upper()]
    assert np.array_equal(gguf.quants.dequantize(blocks.numpy(), kind), dense.numpy())


@pytest.mark.parametrize("type_name", ["tq1_0", "tq2_0"])
def test_the_gguf_package_writes_the_same_bytes_and_reads_the_same_values(type_name):
    kind = gguf.GGMLQuantizationType[type_name.upper()]
    codes = random_codes((-1, 0, 1), 7, 1024)
    scale = torch.linspace(0.01, 3, 28).half().float().reshape(7, 4)
    blocks = encode(codes, scale, type_name)
    dense = codes.float() * scale.repeat_interleave(256, dim=1)
    assert np.array_equal(gguf.quants.quantize(dense.numpy(), kind), blocks.numpy())
    assert np.array_equal(gguf.quants.dequantize(blocks.numpy(), kind), dense.numpy())


def test_numbers_and_sizes_are_those_of_the_gguf_package_where_it_knows_the_type():
    for name, kind in GGML_TYPES.items():
        if name == "q2_0":  # newer than the package
            continue
        known = gguf.GGMLQuantizationType[name.upper()]
        assert (kind.id, kind.block_weights, kind.block_bytes) == (known.value, *gguf.GGML_QUANT_SIZES[known])
        assert kind.file_type == gguf.LlamaFileType[f"MOSTLY_{name.upper()}"].value


@settings(deadline=None)
@given(
    fit=st.sampled_from(FITS),
    rows=st.integers(0, 5),
    blocks=st.integers(1, 4),
    grain=st.sampled_from(["tensor", "row", "group"]),
    seed=st.integers(0, 2**32),
)
def test_codes_and_scales_survive_the_round_trip_and_planes_give_the_same_bytes(fit, rows, blocks, grain, seed):
    type_name, scheme = fit
    kind = ggml_type(type_name)
    inputs = blocks * kind.block_weights
    codes = random_codes(SCHEME_CODES[scheme], rows, inputs, seed)
    shape = {"tensor": (1, 1), "row": (rows, 1), "group": (rows, blocks)}[grain]
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).half().float()
    encoded = encode(codes, scale, type_name)
    assert encoded.shape == (rows, kind.row_bytes(inputs))
    read, scales = decode(encoded, inputs, type_name)
    assert torch.equal(read, codes)
    assert torch.equal(scales, scale.expand(rows, -1).repeat_interleave(blocks // shape[1], dim=1))
    assert torch.equal(encode_planes(pack_planes(codes, scheme), inputs, scheme, scale, type_name), encoded)


@pytest.mark.parametrize("type_name", GGML_TYPES)
def test_rows_beyond_one_step_of_work_are_written_too(type_name):
    kind = ggml_type(type_name)
    scheme = "binary" if kind.name == "q1_0" else "ternary"
    codes = random_codes(SCHEME_CODES[scheme], 700, 1024)
    scale = torch.rand(700, 1).half().float()
    blocks = encode(codes, scale, type_name)
    assert torch.equal(decode(blocks, 1024, type_name)[0], codes)
    assert torch.equal(encode_planes(pack_planes(codes, scheme), 1024, scheme, scale, type_name), blocks)


@pytest.mark.parametrize("shape", [(0, 256), (3, 0), (0, 0)])
@pytest.mark.parametrize("type_name", GGML_TYPES)
def test_a_weight_of_no_rows_or_no_inputs_is_no_bytes(type_name, shape):
    scheme = "binary" if type_name == "q1_0" else "ternary"
    codes, scale = torch.empty(shape, dtype=torch.int8), torch.ones(1, 1)
    blocks = encode(codes, scale, type_name)
    assert blocks.numel() == 0
    assert decode(blocks, shape[1], type_name)[0].shape == shape
    assert torch.equal(encode_planes(pack_planes(codes, scheme), shape[1], scheme, scale, type_name), blocks)


def test_the_values_are_code_times_scale_of_the_block():
    codes, scale = torch.tensor([[1, -1, 0, 1]], dtype=torch.int8), torch.tensor([[0.5, 2.0]])
    assert dequantize_blocks(codes, scale).tolist() == [[0.5, -0.5, 0.0, 2.0]]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(2, 128, dtype=torch.int8), "among -1, 1; got values from 0 to 0"),
        (torch.full((2, 128), 2, dtype=torch.int8), "from 2 to 2"),
        (torch.ones(2, 100, dtype=torch.int8), r"multiple of 128; got int8 \[2, 100\]"),
        (torch.ones(2, 128), "must be int8"),
        (torch.ones(128, dtype=torch.int8), "must be int8"),
    ],
)
def test_codes_that_a_block_cannot_hold_are_refused(codes, message):
    with pytest.raises(FormatError, match=message):
        encode(codes, torch.ones(1, 1), "q1_0")


@pytest.mark.parametrize("value", [0.1, 65536.0, float("inf"), float("nan"), 1e-9])
def test_a_scale_that_no_float16_holds_is_refused(value):
    with pytest.raises(FormatError, match="is no float16"):
        encode(torch.ones(1, 128, dtype=torch.int8), torch.tensor([[value]]), "q1_0")


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (2,), (1, 2), (2, 0)])
def test_scales_of_another_shape_are_refused(shape):
    with pytest.raises(FormatError, match=r"must be \[1, 1\], \[2, 1\] or \[2, G\]"):
        encode(torch.ones(2, 256, dtype=torch.int8), torch.ones(shape), "q1_0")


@pytest.mark.parametrize(
    "blocks", [torch.zeros(2, 17, dtype=torch.uint8), torch.zeros(2, 18), torch.zeros(18, dtype=torch.uint8)]
)
def test_blocks_of_another_shape_are_refused(blocks):
    with pytest.raises(FormatError, match=r"must be uint8 \[N, 18 for every 128 weights\]"):
        decode(blocks, 128, "q1_0")


def test_an_infinite_scale_in_a_file_is_refused():
    blocks = encode(torch.ones(1, 128, dtype=torch.int8), torch.ones(1, 1), "q1_0")
    blocks[0, :2] = torch.tensor([0x00, 0x7C], dtype=torch.uint8)
    with pytest.raises(FormatError, match="infinite or NaN"):
        decode(blocks, 128, "q1_0")


def test_planes_that_were_damaged_are_refused():
    planes = pack_planes(torch.zeros(3, 256, dtype=torch.int8), "ternary")
    planes[1, 2, 5] = 1
    for type_name in ("q2_0", "tq1_0", "tq2_0"):
        with pytest.raises(FormatError, match="sign bit on a zero weight"):
            encode_planes(planes, 256, "ternary", torch.ones(1, 1), type_name)


def test_planes_of_a_scheme_or_width_that_does_not_fit_are_refused():
    ternary = pack_planes(torch.zeros(3, 128, dtype=torch.int8), "ternary")
    with pytest.raises(FormatError, match="ternary weights with 128 inputs do not fit q1_0"):
        encode_planes(ternary, 128, "ternary", torch.ones(1, 1), "q1_0")
    with pytest.raises(FormatError, match="blocks hold 256 weights"):
        encode_planes(ternary, 128, "ternary", torch.ones(1, 1), "tq1_0")
    with pytest.raises(FormatError, match="must be uint8"):
        encode_planes(ternary, 256, "ternary", torch.ones(1, 1), "tq1_0")


def test_an_unknown_type_is_refused_with_the_known_ones():
    with pytest.raises(FormatError, match=r"'q3_0'.*q1_0, q2_0, tq1_0, tq2_0"):
        ggml_type("q3_0")


@pytest.mark.parametrize(
    ("facts", "type_name", "reason"),
    [
        (layer(), "q1_0", ""),
        (layer(granularity="tensor"), "tq2_0", ""),
        (layer("ternary"), "q1_0", "no code 0"),
        (layer(num_inputs=576), "q1_0", "576 inputs are not a multiple of the 128"),
        (layer(num_inputs=576), "q2_0", ""),
        (layer(granularity="group", group_size=64), "q1_0", "one for every 64 inputs"),
        (layer(granularity="group", group_size=64), "q2_0", ""),
        (layer(granularity="group", group_size=256), "q1_0", ""),
        (layer(granularity="group", group_size=128), "tq1_0", "one for every 128 inputs"),
    ],
)
def test_why_a_layer_does_not_fit_is_said(facts, type_name, reason):
    found = why_not(facts, type_name)
    assert reason in found if reason else found == ""
