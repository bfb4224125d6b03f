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
    transposed_codes,
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
    # Uniform rounding errors of 1/127 of the largest of ~300 normal numbers (about 3): 1 - cos ~ (3/127)^2 / 24. Those
    # of alpha, a step of 1/31 of a largest near 1.5 beside a mean square near 1.1, add (1.5/31)^2 / 24 / 1.1 in groups.
    dy, w, alpha = random(300, 200), signs(200, 96, seed=1), random(200, num_groups, seed=2).abs() + 0.1
    weight = alpha.double().repeat_interleave(96 // num_groups, 1) * w
    assert cosine(input_gradient(dy, w, alpha), dy.double() @ weight) > 0.9998
    x, x_scale = codes(300, 96, seed=3), random(300, 1, seed=4).abs() + 0.1
    assert cosine(weight_gradient(dy, x, x_scale), dy.double().T @ (x * x_scale.double())) > 0.9999


@pytest.mark.parametrize(("planes", "least"), [(2, 0.9997), (3, 0.9995), (4, 0.9995)])
def test_gradients_of_several_planes_are_those_of_floats_up_to_rounding(planes, least):
    # As above; codes are uniform here, so the largest product of a row with its scales is twice their mean square, and
    # the error of 6 bits beside it (2 / 31)^2 / 12 / 2 of the square: less than 2e-4.
    dy, alpha = random(300, 200), random(200, 3, seed=2).abs() + 0.1
    w = 2 * torch.randint(2**planes, (200, 96), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    w -= 2**planes - 1
    weight = alpha.double().repeat_interleave(32, 1) * w
    assert cosine(input_gradient(dy, w, alpha, planes), dy.double() @ weight) > least
    rounded, _ = transposed_codes(w, alpha, planes)
    assert int(rounded.abs().max()) <= 31
    assert torch.equal(transposed_codes(w, alpha[:, :1], planes)[0], w), "one scale a row: codes as they are"


def test_scales_of_groups_are_rounded_beside_the_largest_of_their_row():
    w, alpha = signs(40, 96), random(40, 6, seed=1).abs() * torch.logspace(-10, 10, 40).unsqueeze(1)
    rounded, step = transposed_codes(w, alpha)
    weight = alpha.repeat_interleave(16, 1) * w
    assert rounded.abs().amax(dim=1).tolist() == [31] * 40
    # Half a step, and four roundings of 2^-24 each of a product of at most 31 steps.
    assert bool(((rounded * step - weight).abs() <= step * (0.5 + 31 * 2.0**-22)).all())
    one, same = transposed_codes(w, alpha[:1, :1])
    assert torch.equal(one, w)
    assert torch.equal(same, alpha[:1, :1].expand(40, 1))


def test_a_row_whose_scales_are_zero_adds_nothing():
    alpha = torch.tensor([[0.0, 0.0], [1.0, 0.5]])
    dx = input_gradient(torch.tensor([[5.0, 1.0]]), torch.ones(2, 4, dtype=torch.int8), alpha)
    assert torch.allclose(dx, torch.tensor([[1.0, 1.0, 0.5, 0.5]]), rtol=0.033)  # 0.5 is 16 steps of 1/31


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
    tall = torch.zeros(MAX_INT8_INPUTS + 1, 2, dtype=torch.int8)
    with pytest.raises(KernelError, match="131072 inputs is outside 1 to 131071"):
        input_gradient(torch.zeros(1, len(tall)), tall, torch.ones(len(tall), 2))
