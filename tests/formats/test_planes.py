"""`planes_v1`: round trips, the same bytes for ever, and damage that is seen."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitnet_train.errors import FormatError
from bitnet_train.formats.planes import NUM_PLANES, pack_planes, row_bytes, unpack_planes
from bitnet_train.quant.scheme import CODES

ALLOWED = CODES
KNOWN_SHA256 = {
    "binary": "2757dadd8c87a2147b63212db90e984d6a841faec5d8f26f4c343135bedce125",
    "2-plane": "7aaae18b7b279f1b99784013f0201f264b95fefff76da0715540a5581fa4dff4",
    "3-plane": "88dcb38a612101fd44bced87d5b1ef15bdfae8ce3bb2e67270a3ced6a6f1ef6e",
    "4-plane": "20dd7b0c53d59e86dac1c80d62db184bd3d5b39c328aa7ed1f3d535bb0cfa5c9",
    "ternary": "624384cd1a962584d318ad1234cacdf6f1e7d71fa195f216172e1a1a7e76cf64",
}


def known_codes(name: str) -> torch.Tensor:
    """A pattern [3, 100] that needs no random generator: code number n^2 mod 7 of the scheme."""
    values = torch.tensor(ALLOWED[name], dtype=torch.int8)
    return values[torch.arange(300).square() % 7 % len(values)].reshape(3, 100)


@given(name=st.sampled_from(sorted(NUM_PLANES)), rows=st.integers(0, 5), inputs=st.integers(1, 200), data=st.data())
def test_codes_survive_the_round_trip(name, rows, inputs, data):
    size = rows * inputs
    flat = data.draw(st.lists(st.sampled_from(ALLOWED[name]), min_size=size, max_size=size))
    codes = torch.tensor(flat, dtype=torch.int8).reshape(rows, inputs)
    planes = pack_planes(codes, name)
    assert planes.dtype == torch.uint8
    assert planes.shape == (NUM_PLANES[name], rows, 8 * ((inputs + 63) // 64))
    assert torch.equal(unpack_planes(planes, inputs, name), codes)


@pytest.mark.parametrize("name", NUM_PLANES)
def test_a_known_pattern_keeps_its_bytes(name):
    planes = pack_planes(known_codes(name), name)
    assert hashlib.sha256(planes.numpy().tobytes()).hexdigest() == KNOWN_SHA256[name]


def test_input_j_is_bit_j_mod_8_of_byte_j_div_8():
    codes = torch.full((1, 11), -1, dtype=torch.int8)
    codes[0, [0, 3, 9]] = 1
    assert pack_planes(codes, "binary")[0, 0].tolist() == [0b1001, 0b10, 0, 0, 0, 0, 0, 0]


def test_a_ternary_row_has_a_nonzero_plane_and_a_sign_plane():
    planes = pack_planes(torch.tensor([[0, 1, -1]], dtype=torch.int8), "ternary")
    assert planes[:, 0, 0].tolist() == [0b110, 0b010]


@pytest.mark.parametrize("name", ["2-plane", "3-plane", "4-plane"])
def test_plane_p_of_an_odd_code_adds_or_subtracts_2_to_the_p(name):
    codes = torch.tensor([CODES[name]], dtype=torch.int8)
    planes = [unpack_planes(plane.unsqueeze(0), len(CODES[name]), "binary") for plane in pack_planes(codes, name)]
    assert torch.equal(sum(2**p * plane for p, plane in enumerate(planes)), codes)
    assert pack_planes(torch.tensor([[-3, -1, 1, 3]], dtype=torch.int8), "2-plane")[:, 0, 0].tolist() == [
        0b1010,
        0b1100,
    ]


def test_strided_codes_pack_like_contiguous_ones():
    codes = known_codes("ternary")
    assert torch.equal(pack_planes(codes.T.contiguous().T, "ternary"), pack_planes(codes, "ternary"))


@pytest.mark.parametrize(("num_inputs", "expected"), [(1, 8), (64, 8), (65, 16), (576, 72)])
def test_rows_are_whole_words(num_inputs, expected):
    assert row_bytes(num_inputs) == expected


@pytest.mark.parametrize("name", NUM_PLANES)
def test_every_set_padding_bit_is_refused(name):
    planes = pack_planes(known_codes(name), name)
    for plane in range(planes.shape[0]):
        for bit in range(100, 128):
            damaged = planes.clone()
            damaged[plane, 2, bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError, match="padding bits that are not 0"):
                unpack_planes(damaged, 100, name)


def test_a_sign_without_a_weight_is_refused():
    planes = pack_planes(torch.tensor([[0, 1, -1]], dtype=torch.int8), "ternary")
    planes[1, 0, 0] |= 1
    with pytest.raises(FormatError, match="sign bit on a zero weight"):
        unpack_planes(planes, 3, "ternary")


@pytest.mark.parametrize(
    "damage",
    [lambda p: p.to(torch.int8), lambda p: p[0], lambda p: p[:, :, 1:], lambda p: p.repeat(2, 1, 1)],
    ids=["dtype", "rank", "truncated", "planes"],
)
def test_planes_of_another_shape_or_dtype_are_refused(damage):
    broken = damage(pack_planes(known_codes("binary"), "binary"))
    with pytest.raises(FormatError, match=re.escape("must be uint8 [1, N, 16]")) as error:
        unpack_planes(broken, 100, "binary")
    assert str(list(broken.shape)) in str(error.value)


@pytest.mark.parametrize(
    ("name", "bad"),
    [(name, code) for name in CODES for code in (-128, -9, -2, 0, 2, 4, 9, 127) if code not in CODES[name]],
)
def test_a_code_that_the_scheme_lacks_is_refused(name, bad):
    codes = torch.ones(2, 3, dtype=torch.int8)
    codes[1, 1] = bad
    with pytest.raises(FormatError, match=f"Codes of a {name} weight must be"):
        pack_planes(codes, name)


@pytest.mark.parametrize("codes", [torch.ones(2, 3), torch.ones(6, dtype=torch.int8)], ids=["float", "flat"])
def test_codes_of_another_dtype_or_rank_are_refused(codes):
    with pytest.raises(FormatError, match=re.escape("must be int8 [N, K]")):
        pack_planes(codes, "binary")


def test_an_unknown_scheme_is_refused_with_the_allowed_ones():
    with pytest.raises(FormatError, match=r"'quaternary'\. Allowed: binary, 2-plane, 3-plane, 4-plane, ternary"):
        pack_planes(torch.ones(1, 1, dtype=torch.int8), "quaternary")
