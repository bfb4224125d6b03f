from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.errors import ConversionError
from bitnet_train.quant.narrow_table import quantize_narrow, round_narrow

LARGEST = {4: (7, 16), 5: (15, 8)}  # C, M
BITS = tuple(LARGEST)


def table(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_written_down(row: list[float], bits: int) -> tuple[list[int], float]:
    """The law of the module, a number at a time, for rows that float16 is fine enough for."""
    c_max, m_max = LARGEST[bits]
    w = torch.tensor(row)
    scale = float((w.abs().max() / (c_max * m_max)).half())
    codes: list[int] = []
    for group in w.split(32):
        a = float(group.abs().max())
        m = min(max(-int(-(a / (scale * c_max)) // 1), 1), m_max)
        while (smaller := max(1, -(-m * min(c_max, round(a / (scale * m))) // c_max))) != m:
            m = smaller
        codes += [m * max(-c_max, min(c_max, round(float(x) / (scale * m)))) for x in group]
    return codes, scale


@pytest.mark.parametrize("bits", BITS)
def test_a_table_follows_the_law_a_number_at_a_time(bits):
    weight = (table(12, 80) * torch.logspace(-1, 1, 80)).double().mul(256).round().div(256).float()
    codes, scale = quantize_narrow(weight, bits)
    for row, found, s in zip(weight.tolist(), codes.tolist(), scale.tolist(), strict=True):
        assert (found, s) == as_written_down(row, bits)


@pytest.mark.parametrize("bits", BITS)
def test_multipliers_follow_the_largest_weight_of_a_group(bits):
    c_max, m_max = LARGEST[bits]
    weight = torch.zeros(1, 100)  # four groups, the last of four inputs
    weight[0, 3], weight[0, 4] = c_max * m_max, -c_max * m_max / 2 - 0.1
    weight[0, 40], weight[0, 41] = c_max, 0.6
    weight[0, 98] = -2 * c_max
    codes, scale = quantize_narrow(weight, bits)
    assert float(scale) == 1.0
    assert codes[0, [3, 4, 40, 41, 98]].tolist() == [c_max * m_max, -m_max * ((c_max + 1) // 2), c_max, 1, -2 * c_max]
    assert not codes[0, 64:96].any()


def hard_tables(bits: int) -> dict[str, Tensor]:
    wide = table(40, 97, seed=1) * 10.0 ** (torch.rand(40, 1, generator=torch.Generator().manual_seed(2)) * 14 - 9)
    one_large = table(9, 64, seed=3)
    one_large[:, 5] *= 1000
    zeros = table(9, 70, seed=4)
    zeros[:, 32:64], zeros[::2] = 0.0, -0.0
    coarse = torch.linspace(0, 120 * 60 * 2.0**-24, 4001)
    many = [table(7, inputs, seed=inputs) for inputs in (1, 2, 31, 32, 33, 63)]
    return {
        "many scales": wide.clamp(-5e6, 5e6),
        "one large weight": one_large,
        "zeros": zeros,
        "halves": table(30, 64, seed=5).mul(8).round().div(2),
        "coarse float16": torch.stack([coarse, -coarse / 3, coarse * 0.77], 1),
        "coarse float16 in groups": torch.cat([coarse[:, None] * 0.93, torch.zeros(4001, 31), coarse[:, None]], 1),
        **{f"{weight.shape[1]} inputs": weight for weight in many},
    }


@pytest.mark.parametrize("name", hard_tables(4))
@pytest.mark.parametrize("bits", BITS)
def test_rounding_twice_is_rounding_once_in_values_codes_and_scales(bits, name):
    weight = hard_tables(bits)[name]
    codes, scale = quantize_narrow(weight, bits)
    values = torch.empty_like(weight)
    round_narrow(weight, bits, values)
    assert torch.equal(values, codes.float() * scale.float().unsqueeze(1))
    assert not bool((torch.signbit(values) & (values == 0)).any()), "a code has no -0"
    again, scale_again = quantize_narrow(values, bits)
    assert torch.equal(again, codes)
    assert torch.equal(scale_again, scale)
    round_narrow(values, bits, values)
    assert torch.equal(values, codes.float() * scale.float().unsqueeze(1))


@pytest.mark.parametrize("name", hard_tables(4))
@pytest.mark.parametrize("bits", BITS)
def test_codes_of_a_group_are_multiples_of_the_smallest_number_that_its_largest_allows(bits, name):
    c_max, m_max = LARGEST[bits]
    weight = hard_tables(bits)[name]
    codes, scale = quantize_narrow(weight, bits)
    groups = F.pad(codes.int(), (0, -codes.shape[1] % 32)).unflatten(1, (-1, 32))
    m = torch.ceil(groups.abs().amax(-1, keepdim=True) / c_max).clamp(min=1).int()
    assert int(m.max()) <= m_max
    assert not bool((groups % m).any())
    fine = scale >= 2.0**-20
    assert bool((codes[fine].int().abs().amax(1) == c_max * m_max).all()), "that of the largest weight"


@pytest.mark.parametrize("bits", BITS)
def test_a_weight_is_off_by_half_a_step_of_its_group(bits):
    c_max, _ = LARGEST[bits]
    weight = table(200, 96)
    codes, scale = quantize_narrow(weight, bits)
    s = scale.float().unsqueeze(1)
    largest = (codes.float().unflatten(1, (-1, 32)).abs().amax(-1) / c_max).ceil().repeat_interleave(32, 1)
    # the largest of a group may be clamped: by half a step where m fell, by the rounding of the scale elsewhere
    assert bool(((codes * s - weight).abs() <= s * largest * (0.5 + 1 / 2 + c_max * 2.0**-11)).all())
    inner = codes.abs() < largest * c_max
    assert bool(((codes * s - weight).abs()[inner] <= (s * largest * (0.5 + 2.0**-20))[inner]).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e7])
@pytest.mark.parametrize("bits", BITS)
def test_a_row_that_no_float16_scale_can_hold_is_named(bits, value):
    weight = torch.zeros(3, 40)
    weight[2, 39] = value
    with pytest.raises(ConversionError, match=rf"Row 2 of a 3 x 40 table .* an int{bits} table .* Leave `export.embed"):
        quantize_narrow(weight, bits)
