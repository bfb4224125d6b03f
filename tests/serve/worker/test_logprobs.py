"""Logarithms of probabilities, and the likeliest tokens in the order of a greedy text."""

from __future__ import annotations

import numpy as np
import pytest

from bitnet_train.serve.worker.logprobs import likeliest, log_softmax


def test_probabilities_sum_to_one_for_logits_of_any_size() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (5, 1000)).astype(np.float32) + 1e4
    # a float32 of 1e4 is rounded to 2^-10, which shifts every logit alike or by that much
    np.testing.assert_allclose(np.exp(log_softmax(logits).astype(np.float64)).sum(-1), 1, atol=1e-3)
    exact = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64), axis=-1, keepdims=True)
    np.testing.assert_allclose(log_softmax(logits), exact, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "count", "expected"),
    [
        ([1, 3, 2], 2, [1, 2]),
        ([2, 2, 2, 2], 2, [0, 1]),
        ([0, 5, 5, 1], 3, [1, 2, 3]),
        ([1, 2], 0, []),
        ([1, 2], 9, [1, 0]),
        ([5, 1, 5, 7, 5], 3, [3, 0, 2]),
    ],
)
def test_the_likeliest_come_first_and_equals_by_id(row: list[float], count: int, expected: list[int]) -> None:
    assert likeliest(np.asarray(row, np.float32), count) == expected
