from __future__ import annotations

import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.quant.scheme import TABLE_BITS
from bitnet_train.quant.stored import STORED, round_in_place, round_into, rounded
from bitnet_train.quant.table import table_codes

SMALLEST = 2.0**-24  # of float16


@pytest.mark.parametrize("stored", STORED)
def test_rounding_twice_is_rounding_once(stored):
    weight = torch.randn(50, 40, generator=torch.Generator().manual_seed(1))
    once = rounded(weight, stored)
    assert not torch.equal(once, weight)
    assert torch.equal(rounded(once, stored), once)


@pytest.mark.parametrize("stored", TABLE_BITS)
def test_rows_so_small_that_float16_is_coarse_are_rounded_once_too(stored):
    largest = torch.linspace(0, 127 * 200 * SMALLEST, 40_001)
    weight = torch.stack([largest, -largest / 3, largest * 0.77], dim=1)
    codes, scale = table_codes(weight, TABLE_BITS[stored])
    again, scale_again = table_codes(rounded(weight, stored), TABLE_BITS[stored])
    assert torch.equal(again, codes)
    assert torch.equal(scale_again, scale)


@pytest.mark.parametrize("stored", TABLE_BITS)
def test_a_rounded_table_is_its_codes_times_its_scales(stored):
    weight = torch.randn(2000, 16, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = -1e-9
    codes, scale = table_codes(weight, TABLE_BITS[stored])
    found = rounded(weight, stored)
    assert not torch.signbit(found[0, 0]), "a code has no -0"
    assert torch.equal(found, scale.float().unsqueeze(1) * codes.float())


def test_a_tensor_is_rounded_in_place_and_says_so():
    weight = torch.nn.Parameter(torch.tensor([1.003, -2.0]))
    version = weight._version
    round_in_place(weight, "bfloat16")
    assert weight.tolist() == [1.0, -2.0]
    assert weight._version > version


@pytest.mark.parametrize("stored", STORED)
def test_rounding_into_another_tensor_leaves_the_first_as_it_was(stored):
    weight = torch.randn(600, 40, generator=torch.Generator().manual_seed(3))
    before, out = weight.clone(), torch.full_like(weight, torch.nan)
    round_into(weight, stored, out)
    assert torch.equal(out, rounded(weight, stored))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("stored", TABLE_BITS)
def test_a_table_that_is_not_finite_is_refused_whole(stored):
    weight = torch.ones(3000, 4)
    weight[2500, 1] = float("inf")
    before = weight.clone()
    with pytest.raises(ConversionError, match=rf"Row 2500 of a 3000 x 4 table .* an {stored} table holds"):
        round_in_place(weight, stored)
    assert torch.equal(weight, before)
