"""Fitted scales: the least squares they solve, and never a worse one than mean|W|."""

import pytest
import torch

from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from bitnet_train.quant.weight import absmean_scale, expand_scale, float_codes
from tests.fixtures.schemes import CODE_SETS, weight_scheme

N, K, GROUP = 6, 32, 8


def numbers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, K, generator=generator), torch.rand(K, generator=generator) ** 3


def scheme_of(name: str, granularity: str) -> WeightScheme:
    return weight_scheme(name, granularity, GROUP, learnable_scale=True, scale_dtype="float32")


def error(weight: torch.Tensor, scale: torch.Tensor, codes: torch.Tensor, importance: torch.Tensor) -> float:
    lost = weight - expand_scale(scale, *weight.shape) * codes
    return float((importance * lost.square()).sum())


def codes_of(weight: torch.Tensor, scale: torch.Tensor, scheme: WeightScheme) -> torch.Tensor:
    return float_codes(weight, expand_scale(scale, *weight.shape), scheme)


# The sums of N * K = 192 terms in float32 round by at most 192 * 2^-24 of their size.
ROUNDING = 1 + 192 * 2**-24


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
@pytest.mark.parametrize("seed", range(4))
def test_it_is_no_worse_than_the_mean_and_cannot_be_moved_for_the_better(
    name: str, granularity: str, seed: int
) -> None:
    (weight, importance), scheme = numbers(seed), scheme_of(name, granularity)
    scale, mean = fit_scale(weight, scheme, importance), absmean_scale(weight, scheme)
    assert scale.shape == scheme.scale_shape(N, K)
    codes = codes_of(weight, scale, scheme)
    least = error(weight, scale, codes, importance)
    assert least <= error(weight, mean, codes_of(weight, mean, scheme), importance) * ROUNDING
    for factor in (0.99, 1.01):
        assert least <= error(weight, scale * factor, codes, importance) * ROUNDING


def test_a_binary_scale_is_the_weighted_mean_magnitude() -> None:
    weight, importance = numbers()
    scale = fit_scale(weight, scheme_of("binary", "row"), importance)
    torch.testing.assert_close(scale, (weight.abs() * importance).sum(1, keepdim=True) / importance.sum())


def test_without_importance_a_binary_scale_is_mean_w() -> None:
    weight, _ = numbers()
    scheme = scheme_of("binary", "group")
    torch.testing.assert_close(fit_scale(weight, scheme), absmean_scale(weight, scheme))


def test_inputs_that_are_always_zero_do_not_break_a_scale() -> None:
    weight, _ = numbers()
    for importance in (torch.zeros(K), torch.cat([torch.zeros(GROUP), torch.ones(K - GROUP)])):
        for name in CODE_SETS:
            scale = fit_scale(weight, scheme_of(name, "group"), importance)
            assert bool(torch.isfinite(scale).all())
            assert bool((scale > 0).all())


def test_the_scale_is_exact_in_the_type_it_is_stored_in() -> None:
    weight, importance = numbers()
    scale = fit_scale(weight, WeightScheme("ternary", "row", learnable_scale=True), importance)
    assert torch.equal(scale, scale.half().float())
