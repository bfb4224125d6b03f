"""Words for the kernels hold the codes of the planes, with every group padded."""

from __future__ import annotations

import pytest
import torch

from bitnet_train.errors import FormatError, KernelError
from bitnet_train.formats.planes import NUM_PLANES, pack_planes
from bitnet_train.kernels.words import repack, unpack_words


@pytest.mark.parametrize("weight", NUM_PLANES)
@pytest.mark.parametrize(("num_inputs", "group_size"), [(1, 1), (63, 3), (64, 64), (65, 65), (576, 96), (576, 576)])
def test_words_hold_the_codes(make_problem, weight, num_inputs, group_size):
    codes = make_problem(weight, "int8", 1, 5, num_inputs, group_size).w_codes
    words = repack(pack_planes(codes, weight), num_inputs, group_size, weight)
    assert words.shape == (NUM_PLANES[weight], 5, num_inputs // group_size, (group_size + 63) // 64)
    assert words.dtype == torch.int64
    assert torch.equal(unpack_words(words, group_size, weight), codes)


def test_input_k_of_a_group_is_bit_k_of_its_word():
    codes = torch.full((1, 6), -1, dtype=torch.int8)
    codes[0, [0, 2, 4]] = 1
    assert repack(pack_planes(codes, "binary"), 6, 3, "binary").tolist() == [[[[0b101], [0b010]]]]


def test_damaged_planes_are_not_repacked():
    planes = pack_planes(torch.ones(2, 10, dtype=torch.int8), "binary")
    planes[0, 1, 7] = 0x80
    with pytest.raises(FormatError, match="padding bits"):
        repack(planes, 10, 5, "binary")


def test_a_group_that_does_not_divide_the_row_is_refused():
    planes = pack_planes(torch.ones(2, 10, dtype=torch.int8), "binary")
    with pytest.raises(KernelError, match="Group size 4 does not divide the 10 inputs"):
        repack(planes, 10, 4, "binary")
