import itertools

import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.quant.scheme import CODES, GRANULARITIES, WeightScheme
from bitnet_train.quant.weight import (
    absmean_scale,
    away_from_thresholds,
    dequantize,
    expand_scale,
    quantize,
    round_scale,
)
from tests.fixtures.schemes import CODE_SETS, weight_scheme

SCHEMES = [
    weight_scheme(name, granularity, 16, scale_dtype=dtype)
    for name, granularity, dtype in itertools.product(CODE_SETS, GRANULARITIES, ("float16", "float32"))
]
SCALES_PER_MEAN = {1: 1, 2: 1.6026606, 3: 2.7231555, 4: 4.7606477}
TINY = {"float16": 2.0**-14, "float32": 2.0**-126}


def latent(rows=12, inputs=64, seed=0):
    return 0.05 * torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scale_is_the_mean_magnitude_of_what_it_covers_and_a_part_of_it_with_several_planes(scheme):
    w = latent()
    scale = absmean_scale(w, scheme)
    assert scale.shape == scheme.scale_shape(*w.shape)
    covered = {"tensor": w.reshape(1, 1, -1), "row": w.reshape(12, 1, -1), "group": w.reshape(12, 4, 16)}
    exact = covered[scheme.granularity].double().abs().mean(-1) / SCALES_PER_MEAN[scheme.planes]
    unit = 2.0**-11 if scheme.scale_dtype == "float16" else 64 * 12 * 2.0**-24
    unit += 0 if scheme.planes == 1 else 2.0**-22  # of the digits above
    assert torch.all((scale.double() - exact).abs() <= unit * exact)
    assert torch.equal(scale, scale.to(scheme.torch_scale_dtype).float())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_are_those_of_the_definition_computed_element_by_element(scheme):
    w = latent(4, 32)
    scale = absmean_scale(w, scheme)
    codes = quantize(w, scale, scheme)
    assert codes.dtype == torch.int8
    per_scale = scheme.inputs_per_scale(32)
    for n, k in itertools.product(range(4), range(32)):
        alpha = float(scale[min(n, scale.shape[0] - 1), min(k // per_scale, scale.shape[1] - 1)])
        value = float(w[n, k])
        if scheme.name == "binary":
            expected = min(CODES[scheme.code_set], key=lambda code: abs(value - code * alpha))
        else:
            expected = 0 if abs(value) < alpha / 2 else (1 if value > 0 else -1)
        assert int(codes[n, k]) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantising_dequantised_weights_gives_the_same_codes(scheme):
    w = latent()
    scale = absmean_scale(w, scheme)
    codes = quantize(w, scale, scheme)
    again = dequantize(codes, scale)
    assert torch.equal(quantize(again, scale, scheme), codes)
    if scheme.planes == 1:
        assert torch.equal(quantize(again, absmean_scale(again, scheme), scheme), codes)
    if scheme.code_set == "binary" and scheme.scale_dtype == "float16":
        assert torch.equal(absmean_scale(again, scheme), scale)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_dequantised_weights_are_scale_times_codes_exactly(scheme):
    w = latent()
    scale = absmean_scale(w, scheme)
    codes = quantize(w, scale, scheme)
    expected = codes.double() * expand_scale(scale, *w.shape).double()
    assert torch.equal(dequantize(codes, scale), expected.float()), "rounded once"
    if scheme.planes == 1 or scheme.scale_dtype == "float16":
        assert torch.equal(expected.float().double(), expected)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_multiplying_the_weights_multiplies_the_scale_and_keeps_the_codes(scheme):
    w = latent()
    scale, scaled = absmean_scale(w, scheme), absmean_scale(8 * w, scheme)
    assert torch.equal(scaled, 8 * scale)
    assert torch.equal(quantize(8 * w, scaled, scheme), quantize(w, scale, scheme))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_sign_of_zero_is_plus_one(zero):
    scheme = WeightScheme("binary")
    w = torch.tensor([[zero, 1.0]])
    assert quantize(w, absmean_scale(w, scheme), scheme).tolist() == [[1, 1]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_all_zero_weight_gets_the_smallest_normal_scale(scheme):
    scale = absmean_scale(torch.zeros(12, 64), scheme)
    assert torch.all(scale == TINY[scheme.scale_dtype])


def test_relative_error_on_gaussian_weights_is_the_known_one():
    w = latent(512, 512)
    of_planes = {"2-plane": 0.1188, "3-plane": 0.03744, "4-plane": 0.01154}
    for name, expected in {"binary": 0.36, "ternary": 0.26, **of_planes}.items():
        scheme = weight_scheme(name, "tensor")
        scale = absmean_scale(w, scheme)
        error = (dequantize(quantize(w, scale, scheme), scale) - w).pow(2).sum() / w.pow(2).sum()
        assert abs(float(error) - expected) < {1: 0.03, 2: 0.002, 3: 0.002, 4: 0.0005}[scheme.planes]


@pytest.mark.parametrize("value", [1e5, float("inf"), float("nan")])
def test_a_scale_that_cannot_be_stored_is_refused_with_its_key(value):
    with pytest.raises(ConversionError, match=r"`weight.scale_dtype=float16` \(largest value 65504\)"):
        absmean_scale(torch.full((2, 8), value), WeightScheme())


def test_the_scale_of_the_last_plane_must_be_storable_too():
    for planes in (2, 3, 4):
        scheme = WeightScheme(planes=planes)
        last = 2 ** (planes - 1) / scheme.scales_per_mean
        scale = absmean_scale(torch.full((2, 8), 65472 / last), scheme)
        assert bool(torch.isfinite((2 ** (planes - 1) * scale).half()).all())
        with pytest.raises(ConversionError, match=r"`weight.scale_dtype=float16` \(largest value 65504\)"):
            absmean_scale(torch.full((2, 8), 65536 / last), scheme)


def test_a_large_scale_fits_float32():
    assert (
        float(absmean_scale(torch.full((2, 8), 1e5), WeightScheme(granularity="tensor", scale_dtype="float32"))) == 1e5
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_learnable_scale_is_rounded_and_passes_its_gradient_unchanged(dtype):
    scheme = WeightScheme(learnable_scale=True, scale_dtype=dtype)
    scale = torch.tensor([[0.1], [-3.0], [1e-6]], requires_grad=True)
    rounded = round_scale(scale, scheme)
    expected = [[0.0999755859375], [2.0**-14], [2.0**-14]] if dtype == "float16" else [[0.1], [2.0**-126], [1e-6]]
    assert torch.equal(rounded.detach(), torch.tensor(expected))
    rounded.backward(torch.tensor([[1.0], [2.0], [3.0]]))
    assert scale.grad is not None
    assert scale.grad.tolist() == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_learnable_scale_of_0_stays_0_and_its_codes_are_those_of_the_smallest_scale(scheme):
    shape = scheme.scale_shape(2, 32)
    scale = torch.zeros(shape, requires_grad=True)
    rounded = round_scale(scale, scheme)
    assert torch.equal(rounded.detach(), torch.zeros(shape))
    assert not torch.signbit(round_scale(-scale, scheme)).any()
    rounded.sum().backward()
    assert torch.equal(scale.grad, torch.ones(shape))
    w = torch.tensor([[-(2.0**-126), 0.0, 2.0**-126, -4.0] * 8] * 2)
    lowest = CODES[scheme.code_set][0]
    expected = torch.tensor([[-1, 1 if scheme.name == "binary" else 0, 1, lowest] * 8] * 2)
    assert torch.equal(quantize(w, rounded, scheme), expected.to(torch.int8))
    assert torch.equal(dequantize(quantize(w, rounded, scheme), rounded), torch.zeros(2, 32))


@pytest.mark.parametrize("name", CODE_SETS)
def test_codes_under_other_scales_are_those_beside_no_scale_of_0(name):
    scheme = weight_scheme(name, "group", 16, learnable_scale=True)
    w = latent()
    scale = absmean_scale(w, scheme)
    some = scale.clone()
    some[::2, 1] = 0
    codes, others = quantize(w, scale, scheme), expand_scale(some, *w.shape) > 0
    assert torch.equal(quantize(w, some, scheme)[others], codes[others])


BORDERS = {
    "binary": [0.0],
    "2-plane": [-2.0, 0.0, 2.0],
    "3-plane": [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0],
    "4-plane": [2.0 * step for step in range(-7, 8)],
    "ternary": [-0.5, 0.5],
}


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.45])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_latents_leave_their_thresholds_and_keep_their_codes(scheme, margin):
    w = latent()
    scale = absmean_scale(w, scheme)
    scales = expand_scale(scale, *w.shape).expand(w.shape)
    thresholds = scales * torch.tensor(BORDERS[scheme.code_set]).reshape(-1, 1, 1)
    threshold = thresholds[len(thresholds) // 2]
    w[0, :6] = torch.tensor([0.0, -0.0, 1.0, 1.0, -1.0, -1.0]) * scales[0, :6] / 2
    w[1, :2] = torch.tensor([1e-9, -1e-9]) + threshold[1, :2] * torch.tensor([1.0, -1.0])
    moved = away_from_thresholds(w, scale, scheme, margin)
    assert torch.equal(quantize(moved, scale, scheme), quantize(w, scale, scheme))
    distance = (moved - thresholds).abs().amin(0)
    assert torch.all(distance >= scales * (margin - 2**-18)), "but for a few roundings of at most 15 scales"
    was_far = (w - thresholds).abs().amin(0) >= margin * scales
    assert torch.equal(moved[was_far], w[was_far])
    assert bool(was_far.all()) == (margin == 0)


def test_latents_of_a_zero_scale_stay():
    w, scheme = latent(2, 32), WeightScheme("ternary", "row", learnable_scale=True)
    assert torch.equal(away_from_thresholds(w, torch.zeros(2, 1), scheme, 0.1), w)
