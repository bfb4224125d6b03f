import itertools

import pytest
import torch

from bitnet_train.errors import ConfigError
from bitnet_train.quant.scheme import GRANULARITIES
from bitnet_train.quant.surrogate import SURROGATES, Clipped, Identity, Tanh, surrogate_from_dict
from bitnet_train.quant.weight import absmean_scale, dequantize, expand_scale, quantize
from tests.fixtures.schemes import CODE_SETS, weight_scheme

SCHEMES = [weight_scheme(name, grain, 16) for name, grain in itertools.product(CODE_SETS, GRANULARITIES)]
SOFT = {"identity": (0.0, 0.3, 0.7), "clipped": (0.0, 0.3, 0.7), "tanh": (0.3, 2.0, 30.0)}


def problem(scheme, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w = 0.05 * torch.randn(6, 32, generator=generator)
    upstream = torch.randn(6, 32, generator=generator)
    return w.requires_grad_(True), absmean_scale(w, scheme).requires_grad_(True), upstream


def run(surrogate, scheme, hardness, seed=0):
    w, scale, upstream = problem(scheme, seed)
    value = surrogate.weight(w, scale, scheme, torch.tensor(float(hardness)))
    value.backward(upstream)
    return w, scale, upstream, value.detach()


def group_sum(value, shape):
    return value.sum().reshape(1, 1) if shape == (1, 1) else value.reshape(shape[0], shape[1], -1).sum(-1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SURROGATES)
def test_the_hard_weight_is_scale_times_codes_exactly(name, scheme):
    surrogate = SURROGATES[name]()
    w, scale, _, value = run(surrogate, scheme, surrogate.hard)
    assert torch.equal(value, dequantize(quantize(w, scale, scheme), scale.detach()))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SURROGATES)
def test_a_learnable_scale_gets_the_codes_times_the_gradient_over_the_root_of_the_size(name, scheme):
    surrogate = SURROGATES[name]()
    w, scale, upstream, _ = run(surrogate, scheme, surrogate.hard)
    expected = group_sum(quantize(w, scale, scheme) * upstream, scale.shape) / w.numel() ** 0.5
    torch.testing.assert_close(scale.grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_identity_estimator_passes_the_gradient_unchanged_at_any_hardness(scheme):
    for hardness in (0.0, 0.5, 1.0):
        w, _, upstream, _ = run(Identity(), scheme, hardness)
        assert torch.equal(w.grad, upstream)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("surrogate", "hardness"), [(Clipped(1.5), 1.0), (Tanh(1.5), 100.0), (Tanh(1.5), 250.0)])
def test_a_hard_clipped_estimator_stops_the_gradient_beyond_the_clip(surrogate, hardness, scheme):
    w, scale, upstream, _ = run(surrogate, scheme, hardness)
    inside = w.detach().abs() <= 1.5 * scheme.scales_per_mean * expand_scale(scale.detach(), *w.shape)
    assert bool(inside.any())
    assert not bool(inside.all())
    assert torch.equal(w.grad, upstream * inside)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_half_hard_clipped_estimator_blends_both_gradients(scheme):
    w, scale, upstream, _ = run(Clipped(1.0), scheme, 0.25)
    inside = (w.detach().abs() <= scheme.scales_per_mean * expand_scale(scale.detach(), *w.shape)).float()
    torch.testing.assert_close(w.grad, upstream * (0.75 + 0.25 * inside))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["identity", "clipped"])
def test_lambda_blends_latent_and_quantised_weight(name, scheme):
    for hardness in SOFT[name]:
        w, scale, upstream, value = run(SURROGATES[name](), scheme, hardness)
        hard = dequantize(quantize(w, scale, scheme), scale.detach())
        torch.testing.assert_close(value, w.detach() + hardness * (hard - w.detach()))
        expected = hardness * group_sum(quantize(w, scale, scheme) * upstream, scale.shape) / w.numel() ** 0.5
        torch.testing.assert_close(scale.grad, expected, rtol=1e-5, atol=1e-6)


def soft_step(z, code_set, t):
    if code_set == "binary":
        return torch.tanh(t * z) / torch.tanh(t)
    if code_set != "ternary":
        steps = {"2-plane": (-2, 0, 2), "3-plane": range(-6, 7, 2), "4-plane": range(-14, 15, 2)}[code_set]
        largest = torch.tensor(float(len(steps)), dtype=torch.float64)
        height = sum(torch.tanh(t * (largest - step)) for step in steps) / largest
        return sum(torch.tanh(t * (z - step)) for step in steps) / height
    return (torch.tanh(t * (z - 0.5)) + torch.tanh(t * (z + 0.5))) / (torch.tanh(0.5 * t) + torch.tanh(1.5 * t))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("t", SOFT["tanh"])
def test_tanh_has_the_gradient_that_autograd_finds_in_float64(t, scheme):
    w, scale, upstream, value = run(Tanh(), scheme, t)
    exact_w, exact_scale = w.detach().double().requires_grad_(True), scale.detach().double().requires_grad_(True)
    z = exact_w / expand_scale(exact_scale.detach(), *w.shape)
    exact = expand_scale(exact_scale, *w.shape) * soft_step(z, scheme.code_set, torch.tensor(t, dtype=torch.float64))
    exact.backward(upstream.double())
    torch.testing.assert_close(value.double(), exact.detach(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(w.grad.double(), exact_w.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scale.grad.double() * w.numel() ** 0.5, exact_scale.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", SURROGATES)
def test_under_a_scale_of_0_values_and_gradients_stay_finite(name, scheme):
    surrogate = SURROGATES[name]()
    for hardness in (*SOFT[name], surrogate.hard):
        w, scale, upstream = problem(scheme)
        with torch.no_grad():
            w[:, ::3] = 0
            w[:, 1::3] = 2.0**-126
            scale[0] = 0
        value = surrogate.weight(w, scale, scheme, torch.tensor(float(hardness)))
        value.backward(upstream)
        assert all(bool(torch.isfinite(part).all()) for part in (value.detach(), w.grad, scale.grad))
        if hardness == surrogate.hard:
            assert torch.equal(value[0].detach().abs(), torch.zeros(32))


@pytest.mark.parametrize("name", CODE_SETS)
def test_the_soft_step_is_nearly_linear_at_first_and_nearly_the_codes_at_last(name):
    scheme = weight_scheme(name, "tensor")
    w, scale = torch.tensor([[-1.0, -0.8, -0.2, 0.2, 0.8, 1.0]]), torch.ones(1, 1)
    start = Tanh().weight(w, scale, scheme, torch.tensor(0.002))
    end = Tanh().weight(w, scale, scheme, torch.tensor(99.0))
    torch.testing.assert_close(start, w, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(end, quantize(w, scale, scheme).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SURROGATES)
def test_an_estimator_survives_its_dictionary(name):
    surrogate = SURROGATES[name]()
    assert surrogate_from_dict(surrogate.to_dict()) == surrogate


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "steep"}, "Allowed: identity, clipped, tanh"),
        ({"name": "identity", "clip": 2.0}, "unknown keys"),
        ({"name": "clipped", "clip": 0.0}, "`surrogate.clip=0.0` must be above 0"),
    ],
)
def test_a_wrong_estimator_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        surrogate_from_dict(data)
