"""The oracle of integer training against the gradients it rounds, in float64, and against its own bounds."""

import pytest
import torch

from bitnet_train.errors import KernelError
from bitnet_train.kernels.reference_training import (
    BLOCK_TOKENS,
    MAX_INT8_INPUTS,
    input_gradient,
    int8_product,
    round_columns,
    round_rows,
    weight_gradient,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape, seed=0, lowest=-127):
    return torch.randint(lowest, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def signs(*shape, seed=0):
    return torch.where(random(*shape, seed=seed) >= 0, 1, -1).to(torch.int8)


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double().reshape(-1), b.reshape(-1), dim=0))


def test_rounding_keeps_each_line_within_half_a_step_of_its_largest():
    values = random(9, 300) * torch.logspace(-20, 20, 9).unsqueeze(1)
    rounded, scale = round_rows(values)
    assert rounded.abs().amax(dim=1).tolist() == [127] * 9
    # Half a step, and four roundings of 2^-24 each of a product of at most 127 steps.
    assert bool(((rounded * scale - values).abs() <= scale * (0.5 + 127 * 2.0**-22)).all())
    columns, same = round_columns(values.t())
    assert torch.equal(columns.t(), rounded)
    assert torch.equal(same, scale)


def test_a_line_of_zeros_or_of_numbers_below_the_smallest_maximum_is_finite():
    rounded, scale = round_rows(torch.tensor([[0.0, -0.0], [1e-45, -1e-45], [2.0**-100, 2.0**-101]]))
    assert rounded.tolist() == [[0, 0], [0, 0], [127, 64]]
    assert bool(torch.isfinite(scale).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_line_that_is_not_finite_is_nan_and_alone(bad):
    dy, w = random(3, 8), signs(8, 4)
    dy[1, 5] = bad
    assert torch.isnan(input_gradient(dy, w, torch.ones(8, 1))).all(dim=1).tolist() == [False, True, False]
    nan = torch.isnan(weight_gradient(dy, codes(3, 4), torch.ones(3, 1)))
    assert nan.all(dim=1).tolist() == [n == 5 for n in range(8)]
    assert int(nan.sum()) == 4


@pytest.mark.parametrize("num_groups", [1, 3])
def test_gradients_are_those_of_floats_up_to_rounding(num_groups):
    # Uniform rounding errors of 1/127 of the largest of ~300 normal numbers (about 3): 1 - cos ~ (3/127)^2 / 24.
    dy, w, alpha = random(300, 200), signs(200, 96, seed=1), random(200, num_groups, seed=2).abs() + 0.1
    weight = alpha.double().repeat_interleave(96 // num_groups, 1) * w
    assert cosine(input_gradient(dy, w, alpha), dy.double() @ weight) > 0.9999
    x, x_scale = codes(300, 96, seed=3), random(300, 1, seed=4).abs() + 0.1
    assert cosine(weight_gradient(dy, x, x_scale), dy.double().T @ (x * x_scale.double())) > 0.9999


def test_a_loud_token_is_rounded_with_its_block_only():
    dy, x = random(3 * BLOCK_TOKENS, 5), codes(3 * BLOCK_TOKENS, 7)
    quiet = weight_gradient(dy[BLOCK_TOKENS:], x[BLOCK_TOKENS:], torch.ones(2 * BLOCK_TOKENS, 1))
    dy[3] *= 1e30
    x[:BLOCK_TOKENS] = 0
    assert torch.equal(weight_gradient(dy, x, torch.ones(3 * BLOCK_TOKENS, 1)), quiet)


def test_no_token_gives_no_gradient():
    assert torch.equal(weight_gradient(torch.empty(0, 3), codes(0, 4), torch.empty(0, 1)), torch.zeros(3, 4))
    assert input_gradient(torch.empty(0, 3), signs(3, 4), torch.ones(1, 1)).shape == (0, 4)


def test_an_int8_product_is_exact_integers_times_two_scales():
    x, w = codes(5, 300, lowest=-128), codes(7, 300, seed=1, lowest=-128)
    x[0], w[0], w[1] = -128, -128, 127
    x_scale, w_scale, bias = random(5, 1).abs(), random(7, seed=1).abs(), random(7, seed=2)
    expected = (w_scale * (x.long() @ w.long().T).float()) * x_scale
    assert torch.equal(int8_product(x, x_scale, w, w_scale, None), expected)
    assert torch.equal(int8_product(x, x_scale, w, w_scale, bias), expected + bias)


def test_sums_that_could_overflow_and_groups_that_do_not_fit_are_refused():
    assert MAX_INT8_INPUTS * 128 * 128 < 2**31 <= (MAX_INT8_INPUTS + 1) * 128 * 128
    too_long = torch.zeros(1, MAX_INT8_INPUTS + 1, dtype=torch.int8)
    with pytest.raises(KernelError, match="131072 inputs is outside 1 to 131071"):
        int8_product(too_long, torch.ones(1, 1), too_long, torch.ones(1), None)
    for num_groups in (2, 4, 9, 0):
        with pytest.raises(KernelError, match=f"{num_groups} scales a row do not divide the 7 inputs"):
            input_gradient(torch.ones(1, 3), signs(3, 7), torch.ones(3, num_groups))
