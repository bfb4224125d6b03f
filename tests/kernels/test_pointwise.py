"""Gradients of norms and gated units against the formulas in float64, on every instruction set here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bitnet_train.kernels.isa import available_isas, forced_isa
from bitnet_train.kernels.pointwise import gated_unit_gradients, norm_gradients

every_isa = pytest.mark.parametrize("isa", available_isas())
SHAPES = [(1, 1), (3, 7), (65, 48), (2, 67, 130), (300, 576)]
EPS = {torch.float32: torch.finfo(torch.float32).eps, torch.bfloat16: torch.finfo(torch.bfloat16).eps}


def _random(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_a_unit_are_those_of_the_definition(shape: tuple[int, ...], dtype: torch.dtype, isa: str) -> None:
    gate, up, dy = (_random(*shape, seed=seed).to(dtype) for seed in range(3))
    leaves = [x.double().requires_grad_() for x in (gate, up)]
    wanted = torch.autograd.grad(leaves[0] * torch.sigmoid(leaves[0]) * leaves[1], leaves, dy.double())
    with forced_isa(isa):
        found = gated_unit_gradients(gate, up, dy)
    # A handful of operations, each within a rounding of its result. The slope 1 + z (1 - s) is a difference near z =
    # -1.28, where its parts are of the size of 1 and up * dy is what they are multiplied with.
    sizes = (dy.double() * up.double()).abs(), (dy.double() * gate.double()).abs()
    for x, exact, size in zip(found, wanted, sizes, strict=True):
        assert x.dtype == dtype
        assert bool(((x.double() - exact).abs() <= 8 * EPS[dtype] * size + 1e-30).all())


@every_isa
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_weight", [False, True])
def test_gradients_of_a_norm_are_those_of_the_definition(shape: tuple[int, ...], with_weight: bool, isa: str) -> None:
    x, dy, weight = _random(*shape, seed=0), _random(*shape, seed=1), _random(shape[-1], seed=2)
    rate = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    leaves = [t.double().requires_grad_() for t in (x, weight)]
    rows, weights = leaves
    normal = rows / (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    wanted = torch.autograd.grad(normal * weights, leaves, dy.double())
    with forced_isa(isa):
        dx, dw = norm_gradients(x, rate, weight, dy, with_weight=with_weight)
    # dx is a difference of two numbers of the size of rate * |dy w|, in the mean over a row; the sum of K terms is
    # rounded K times. Of dw as many as there are tokens.
    scale = (rate * (dy * weight).abs().mean(-1, keepdim=True)).double() * (1 + normal.detach().abs())
    largest = (rate * (dy * weight).abs()).double()
    assert bool(
        ((dx.double() - wanted[0]).abs() <= EPS[torch.float32] * (8 + shape[-1] ** 0.5) * (scale + largest)).all()
    )
    assert (dw is not None) == with_weight
    if dw is not None:
        terms = (dy.double() * normal.detach()).abs().flatten(0, -2)
        assert bool(((dw.double() - wanted[1]).abs() <= EPS[torch.float32] * 8 * terms.sum(0)).all())


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, dy, weight = _random(301, 576, seed=0), _random(301, 576, seed=1), _random(576, seed=2)
    rate, before = torch.rsqrt(x.square().mean(-1, keepdim=True)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            dx, dw = norm_gradients(x, rate, weight, dy, with_weight=True)
            assert dw is not None
            found.append((dx, dw, *gated_unit_gradients(x, dy, x + dy)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_gates_saturate_and_what_is_not_finite_is_not_hidden(dtype: torch.dtype, isa: str) -> None:
    gate = torch.tensor([100.0, -100.0, torch.nan, 0.0] * 8, dtype=dtype)  # whole vectors of every instruction set
    ones = torch.ones_like(gate)
    with forced_isa(isa):
        d_gate, d_up = gated_unit_gradients(gate, ones, ones)
    assert torch.equal(d_up[[0, 3]], torch.tensor([100.0, 0.0], dtype=dtype))
    assert torch.equal(d_gate[[0, 3]], torch.tensor([1.0, 0.5], dtype=dtype))
    assert bool((d_gate[1].abs() < 1e-30) & (d_up[1].abs() < 1e-30))
    assert bool(d_gate[2].isnan() & d_up[2].isnan())
    rate = torch.ones(1, 1)
    with forced_isa(isa):
        dx, _ = norm_gradients(
            torch.tensor([[1.0, torch.inf]]), rate, torch.ones(2), torch.ones(1, 2), with_weight=True
        )
    assert not bool(dx.isfinite().any())
