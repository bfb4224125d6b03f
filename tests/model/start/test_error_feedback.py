"""Error feedback: the column by column law of GPTQ, and latents that keep its codes."""

import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.model.start.error_feedback import error_feedback
from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from bitnet_train.quant.weight import absmean_scale, dequantize, expand_scale, float_codes, quantize
from tests.fixtures.schemes import CODE_SETS, weight_scheme

N, K, TOKENS = 12, 48, 400


def layer(seed: int = 0, num_inputs: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [N, K], and inputs [T, K] near a subspace, as those of a trained model are."""
    generator = torch.Generator().manual_seed(seed)
    near = torch.randn(TOKENS, 12, generator=generator) @ torch.randn(12, num_inputs, generator=generator)
    noise = 0.3 * torch.randn(TOKENS, num_inputs, generator=generator)
    return torch.randn(N, num_inputs, generator=generator), near + noise


def scheme_of(name: str, granularity: str, group: int = 16) -> WeightScheme:
    return weight_scheme(name, granularity, group, learnable_scale=True)


def output_error(x: torch.Tensor, weight: torch.Tensor, latent: torch.Tensor, scale: torch.Tensor, scheme) -> float:
    written = dequantize(quantize(latent, scale, scheme), scale)
    return float((x @ (written - weight).t()).square().sum())


@pytest.mark.parametrize("num_inputs", [K, 304], ids=["a panel", "three panels"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_outputs_are_nearer_than_with_the_mean_or_the_best_scale_alone(
    name: str, granularity: str, num_inputs: int
) -> None:
    (weight, x), scheme = layer(num_inputs=num_inputs), scheme_of(name, granularity)
    latent, scale = error_feedback(weight, x.t() @ x, scheme)
    assert latent.shape == weight.shape
    assert scale.shape == scheme.scale_shape(N, num_inputs)
    fed = output_error(x, weight, latent, scale, scheme)
    for other in (absmean_scale(weight, scheme), fit_scale(weight, scheme, (x * x).sum(0))):
        assert fed < 0.7 * output_error(x, weight, weight, other, scheme)


@pytest.mark.parametrize("name", CODE_SETS)
def test_the_codes_are_those_of_the_plain_loop_of_the_paper(name: str) -> None:
    (weight, x), scheme = layer(), scheme_of(name, "row")
    moments = x.t() @ x
    latent, scale = error_feedback(weight, moments, scheme, damping=0.01)
    damped = (moments / moments.diagonal().mean()).double() + 0.01 * torch.eye(K, dtype=torch.float64)
    start = fit_scale(weight, scheme, damped.diagonal().float())
    work, inverse = weight.double().clone(), torch.linalg.inv(damped)
    expected = torch.empty_like(work)
    for k in range(K):
        expected[:, k] = float_codes(work[:, k].float(), start[:, 0], scheme).double()
        lost = (work[:, k] - start[:, 0] * expected[:, k]) / inverse[k, k]
        work -= lost[:, None] * inverse[k]
        inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    assert torch.equal(quantize(latent, scale, scheme), expected.to(torch.int8))


@pytest.mark.parametrize("name", CODE_SETS)
def test_no_scale_of_a_row_can_be_moved_for_the_better(name: str) -> None:
    (weight, x), scheme = layer(), scheme_of(name, "group")
    latent, scale = error_feedback(weight, x.t() @ x, scheme, damping=1e-6)
    codes = quantize(latent, scale, scheme)
    least = float((x @ (dequantize(codes, scale) - weight).t()).square().sum())
    for group in range(scale.shape[1]):
        for factor in (0.98, 1.02):  # float16 rounds a scale by at most 2^-11, far less
            moved = scale.clone()
            moved[:, group] *= factor
            assert least < float((x @ (dequantize(codes, moved) - weight).t()).square().sum())


@pytest.mark.parametrize("name", CODE_SETS)
def test_every_latent_stays_within_reach_of_a_flip(name: str) -> None:
    (weight, x), scheme = layer(), scheme_of(name, "group")
    latent, scale = error_feedback(weight, x.t() @ x, scheme)
    ratio = latent.abs() / expand_scale(scale, N, K)
    assert float(ratio.max()) <= 2 * scheme.num_magnitudes * (1 + 2**-22)
    assert float(ratio.min()) < 0.2, "and keeps its distance from zero: latents are not all alike"


def test_groups_that_are_no_divisor_of_a_panel_are_walked_whole() -> None:
    weight, x = layer()
    for group in (3, 48):
        scheme = scheme_of("binary", "group", group)
        latent, scale = error_feedback(weight, x.t() @ x, scheme)
        assert output_error(x, weight, latent, scale, scheme) < output_error(
            x, weight, weight, absmean_scale(weight, scheme), scheme
        )


def test_inputs_that_are_always_zero_are_no_obstacle() -> None:
    weight, x = layer()
    x[:, 5:9] = 0
    latent, scale = error_feedback(weight, x.t() @ x, scheme_of("binary", "row"))
    assert bool(torch.isfinite(latent).all())
    assert bool(torch.isfinite(scale).all())


def test_moments_without_a_factor_are_refused_with_the_keys_that_help() -> None:
    weight, _ = layer()
    with pytest.raises(ConversionError, match=r"not positive definite.*`init\.damping`.*`init\.calibration_rows`"):
        error_feedback(weight, torch.eye(K) - 2 * torch.ones(K, K), scheme_of("binary", "row"))
