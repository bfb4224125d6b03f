from __future__ import annotations

import pytest
import torch

from bitnet_train.packed.narrow import narrowest, same_bits

VALUES = {
    "zero and one": ([0.0, 1.0, -0.0], torch.bfloat16),
    "eight bits of significand": ([255.0, -(2.0**100)], torch.bfloat16),
    "eleven bits of significand": ([2047.0, 2.0**-24], torch.float16),
    "too large for float16": ([2047.0 * 2**20], torch.float32),
    "twelve bits of significand": ([4095.0], torch.float32),
    "too small for float16": ([2.0**-24 * 1.0009765625], torch.float32),
    "infinity": ([float("inf"), 2047.0], torch.float16),
}


@pytest.mark.parametrize(("values", "dtype"), VALUES.values(), ids=VALUES.keys())
def test_the_narrowest_type_that_holds_every_value_is_chosen(values, dtype):
    tensor = torch.tensor(values)
    narrow = narrowest(tensor)
    assert narrow.dtype == dtype
    assert same_bits(narrow.float(), tensor)


def test_a_nan_with_a_payload_survives():
    tensor = torch.tensor([0x7FC00123], dtype=torch.int32).view(torch.float32)
    assert same_bits(narrowest(tensor).float(), tensor)


def test_integers_stay_as_they_are():
    assert narrowest(torch.arange(4)).dtype == torch.int64


def test_same_bits_tells_zero_from_minus_zero_and_shape_from_shape():
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(torch.zeros(2, 1), torch.zeros(1, 2))
    assert not same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
