"""The oracle against plain integer arithmetic, and the order of its float operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train.errors import KernelError
from bitnet_train.kernels import reference


@pytest.mark.parametrize(("num_inputs", "group_size"), [(1, 1), (63, 7), (576, 64), (4097, 4097)])
def test_products_equal_integer_arithmetic(make_problem, num_inputs, group_size):
    problem = make_problem("ternary", "int8", 5, 7, num_inputs, group_size)
    x = problem.x_codes.numpy().astype(np.int64).reshape(5, -1, group_size)
    w = problem.w_codes.numpy().astype(np.int64).reshape(7, -1, group_size)
    acc = reference.grouped_dot(problem.x_codes, problem.w_codes, group_size)
    assert np.array_equal(acc.numpy(), np.einsum("tgk,ngk->tng", x, w))


def test_rescale_follows_the_contract_operation_by_operation(make_problem):
    problem = make_problem("binary", "int8", 3, 4, 384, 96)
    acc = reference.grouped_dot(problem.x_codes, problem.w_codes, 96).numpy()
    w_scale, x_scale, bias = problem.w_scale.numpy(), problem.x_scale.numpy(), problem.bias.numpy()
    got = reference.rescale(torch.from_numpy(acc), problem.w_scale, problem.x_scale, problem.bias)
    for token in range(3):
        for row in range(4):
            y = np.float32(0)
            for group in range(4):
                y = np.float32(y + np.float32(w_scale[row, group] * np.float32(acc[token, row, group])))
            y = np.float32(np.float32(y * x_scale[token, 0]) + bias[row])
            assert got[token, row].item() == float(y)


@pytest.mark.parametrize("group_size", [1, 3, 64, 576])
def test_linear_is_rescale_of_the_products_bit_for_bit(make_problem, group_size):
    problem = make_problem("ternary", "int8", 6, 9, 576, group_size)
    acc = reference.grouped_dot(problem.x_codes, problem.w_codes, group_size)
    expected = reference.rescale(acc, problem.w_scale, problem.x_scale, problem.bias)
    assert torch.equal(problem.codes_linear().view(torch.int32), expected.view(torch.int32))


def test_linear_is_exact_where_float32_products_would_round(make_problem):
    num_inputs = 1 << 19  # sums of about 64 * K = 2^25, where float32 holds even numbers only
    problem = make_problem("binary", "int8", 1, 16, num_inputs, num_inputs)
    problem.w_codes.copy_(torch.where(problem.x_codes >= 0, 1, -1))
    problem.w_codes[:, :16] = torch.where(torch.eye(16, dtype=torch.bool), 1, -1)
    acc = problem.w_codes.numpy().astype(np.int64) @ problem.x_codes[0].numpy().astype(np.int64)
    assert acc.min() > 1 << 24
    expected = acc.astype(np.float32) * problem.w_scale.numpy()[:, 0] * problem.x_scale.item()
    assert np.array_equal(problem.codes_linear()[0].numpy(), expected.astype(np.float32) + problem.bias.numpy())


def test_linear_ignores_an_autocast_around_it(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 576, 576)
    expected = problem.codes_linear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(problem.codes_linear(), expected)


def test_inputs_are_left_as_they_were(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 128, 64)
    before = [tensor.clone() for tensor in (problem.x_scale, problem.w_scale, problem.bias)]
    problem.codes_linear()
    assert all(map(torch.equal, before, (problem.x_scale, problem.w_scale, problem.bias)))


@pytest.mark.parametrize("group_size", [0, -1, reference.MAX_GROUP_SIZE + 1])
def test_a_group_that_could_overflow_is_refused(group_size):
    with pytest.raises(KernelError, match=f"Group size {group_size} is outside 1 to {reference.MAX_GROUP_SIZE}"):
        reference.count_groups(1 << 25, group_size)


def test_the_largest_group_fits_int32_and_one_more_does_not():
    assert 128 * reference.MAX_GROUP_SIZE <= 2**31 - 1 < 128 * (reference.MAX_GROUP_SIZE + 1)


def test_a_group_that_does_not_divide_the_inputs_is_refused():
    with pytest.raises(KernelError, match="Group size 128 does not divide the 576 inputs"):
        reference.count_groups(576, 128)
