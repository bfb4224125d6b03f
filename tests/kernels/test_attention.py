"""Fused attention of a training step against softmax written out in float64, on every instruction set here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.kernels.attention import fits, fused_attention
from bitnet_train.kernels.isa import REFERENCE, available_isas, forced_isa

every_isa = pytest.mark.parametrize("isa", [isa for isa in available_isas() if isa != REFERENCE])
SHAPES = [(1, 9, 3, 193, 64), (2, 4, 4, 77, 32), (2, 4, 2, 64, 48), (1, 2, 1, 1, 16), (1, 2, 2, 65, 128)]  # B H G L D
EPS = torch.finfo(torch.float32).eps


def _inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v as a model has them: rows of tokens, seen by heads."""
    num_rows, heads, kv_heads, length, dim = shape
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(num_rows, length, count, dim, generator=generator) for count in (heads, kv_heads, kv_heads)]
    return [x.transpose(1, 2).to(dtype) for x in made]


def _documents(num_rows: int, length: int) -> Tensor:
    """Which tokens see which where documents of 23 tokens are kept apart, and one token sees nothing."""
    document = torch.arange(length) // 23
    mask = (document[:, None] == document) & torch.ones(length, length, dtype=torch.bool).tril()
    mask[length // 2] = False
    return mask.expand(num_rows, length, length).clone()


def _exact(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    length, group = q.shape[2], q.shape[1] // k.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask[:, None]
    scores = scale * q @ k.repeat_interleave(group, 1).transpose(2, 3)
    weights = scores.masked_fill(~seen, -1e300).softmax(-1).masked_fill(~seen, 0.0)
    return (weights @ v.repeat_interleave(group, 1)).transpose(1, 2)


def _gradients(inputs: list[Tensor], attend, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
    out = attend(*leaves)
    d_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return out.detach(), list(torch.autograd.grad(out, leaves, d_out))


@every_isa
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_definition(shape: tuple[int, ...], masked: bool, isa: str) -> None:
    inputs, scale = _inputs(shape), shape[-1] ** -0.5
    mask = _documents(shape[0], shape[3]) if masked else None
    with forced_isa(isa):
        out, found = _gradients(inputs, lambda *x: fused_attention(*x, mask, scale), torch.float32)
    exact, wanted = _gradients(inputs, lambda *x: _exact(*x, mask, scale), torch.float64)
    # Sums of L and D terms, each rounded: errors add like steps of a random walk. A score is of size 1, and exp passes
    # its error on; ds is a difference of numbers of the size of d_out . v, which are sums of D terms.
    bound = EPS * 4 * (shape[3] ** 0.5 + shape[4] ** 0.5)
    assert (out - exact).norm() <= bound * exact.norm()
    size = max(float(gradient.norm()) for gradient in wanted)
    assert all((a - b).norm() <= bound * size for a, b in zip(found, wanted, strict=True))


@every_isa
def test_no_bit_depends_on_the_number_of_threads_or_on_other_rows(isa: str) -> None:
    inputs, before = _inputs((3, 6, 2, 130, 64)), torch.get_num_threads()
    made = []
    try:
        with forced_isa(isa):
            for num_threads in (1, 2, 3):
                torch.set_num_threads(num_threads)
                made.append(_gradients(inputs, lambda *x: fused_attention(*x, None, 0.125), torch.float32))
            alone = fused_attention(*(x[1:2] for x in inputs), None, 0.125)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, made[0][0][1:2])
    for out, gradients in made[1:]:
        assert torch.equal(out, made[0][0])
        assert all(torch.equal(a, b) for a, b in zip(gradients, made[0][1], strict=True))


def test_a_token_that_sees_nothing_is_zero_and_moves_nothing() -> None:
    inputs = _inputs((1, 2, 2, 40, 32))
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    out, gradients = _gradients(inputs, lambda *x: fused_attention(*x, mask, 1.0), torch.float32)
    assert not out.any()
    assert not any(gradient.any() for gradient in gradients)


def test_narrow_inputs_are_widened_and_the_result_is_rounded_once() -> None:
    inputs = _inputs((1, 4, 2, 96, 64), torch.bfloat16)
    out, gradients = _gradients(inputs, lambda *x: fused_attention(*x, None, 0.125), torch.bfloat16)
    wide = fused_attention(*(x.float() for x in inputs), None, 0.125)
    assert torch.equal(out, wide.bfloat16())
    assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)


def test_large_scores_do_not_overflow_and_what_is_not_finite_is_passed_on() -> None:
    q, k, v = _inputs((1, 1, 1, 64, 16))
    assert fused_attention(1e3 * q, 1e3 * k, v, None, 1.0).isfinite().all()
    q[0, 0, 40] = torch.nan
    out = fused_attention(q, k, v, None, 1.0)
    assert out[0, 40].isnan().all()
    assert out[0, :40].isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: (q, k[:, :, 1:], v[:, :, 1:]),  # a cache
        lambda q, k, v: (q[..., :24], k[..., :24], v[..., :24]),
        lambda q, k, v: (q[:, :3], k, v),
        lambda q, k, v: (q, k, v.bfloat16()),
        lambda q, k, v: (q.double(), k.double(), v.double()),
    ],
)
def test_what_has_no_kernel_is_refused(change) -> None:
    q, k, v = change(*_inputs((1, 4, 2, 40, 32)))
    assert not fits(q, k, v)
    with pytest.raises(KernelError, match="no kernel here"):
        fused_attention(q, k, v, None, 1.0)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(KernelError, match="`mask` must be bool"):
        fused_attention(*_inputs((1, 4, 2, 40, 32)), torch.ones(1, 40, 39, dtype=torch.bool), 1.0)
