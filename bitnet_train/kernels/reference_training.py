"""The oracle of the integer products of a training step: plain torch, exact integers, float32 around them.

    rounding      largest = max|v| of a line;  inverse = 127 / max(largest, 2^-100);  codes = round(v * inverse)
                  scale = 1 / inverse;  v ~ codes * scale            round half to even, every quotient rounded once
    dx            g = dy * alpha;  codes, r = round the rows of g;  dx[t,k] = r[t] * float(sum_n codes[t,n] S[n,k])
                  with scales of groups: for each group of inputs by itself, alpha and S being those of the group
    dW            d = dy * s_x;  codes, r = round the columns of d in each block of 128 tokens
                  dW = 0;  for the blocks in order: dW[n,k] = dW[n,k] + (r[n] * float(sum_t codes[t,n] Qx[t,k]))
    int8 product  y[t,n] = (s_w[n] * float(sum_k Qx[t,k] Qw[n,k])) * s_x[t] (+ bias[n])

in float32, one rounding an operation, none fused; the compiled kernels give these very bits. The token scale of x lies
on the summed axis of dW, so it is folded into dy before rounding, and what the forward saves is x's own codes. Blocks
keep one loud token from silencing the rest. Nearest rounding was enough (no gain from stochastic rounding).

A line with a value that is not finite, or that overflows when folded, has codes 0 and a NaN scale: its results are NaN.

Integers: |sum| <= 127 N in dx, 127 * 128 * 128 < 2^21 in a block of dW, 2^14 K in the int8 product, which is refused
beyond `MAX_INT8_INPUTS`; they are computed in float64, which is exact.

Shapes: T tokens, N outputs, K inputs, G groups of K // G inputs that share a weight scale; S are the weight's codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.errors import KernelError

__all__ = [
    "BLOCK_TOKENS",
    "MAX_INT8_INPUTS",
    "input_gradient",
    "int8_product",
    "round_columns",
    "round_rows",
    "weight_gradient",
]

BLOCK_TOKENS = 128
"""Tokens of a block of dW, which share a scale in each output."""
MAX_INT8_INPUTS = (2**31 - 1) // 128**2
"""The longest int8 row whose product with another fits int32 for all codes: 131,071 inputs."""

_LARGEST_CODE = 127.0
_SMALLEST_MAXIMUM = 2.0**-100


def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [R, C], -127 to 127, and scale float32 [R, 1] of values float32 [R, C]."""
    largest = values.abs().amax(dim=1, keepdim=True)  # a NaN is the largest
    finite = torch.isfinite(largest)
    inverse = torch.full_like(largest, _LARGEST_CODE) / largest.clamp(min=_SMALLEST_MAXIMUM)
    codes = torch.where(finite, torch.round(values * inverse), 0.0).to(torch.int8)
    return codes, torch.where(finite, 1.0 / inverse, torch.nan)


def round_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [R, C] and scale float32 [C, 1] of values float32 [R, C]."""
    codes, scale = round_rows(values.t())
    return codes.t().contiguous(), scale


def input_gradient(dy: Tensor, w_codes: Tensor, w_scale: Tensor) -> Tensor:
    """dx float32 [T, K] of dy float32 [T, N], w_codes int8 [N, K], w_scale float32 [N, G] or [1, 1].

    Raises KernelError when G does not divide K.
    """
    num_inputs, num_groups = w_codes.shape[1], w_scale.shape[1]
    check_groups(num_inputs, num_groups)
    dx = dy.new_empty(dy.shape[0], num_inputs)
    parts = zip(w_codes.chunk(num_groups, 1), dx.chunk(num_groups, 1), strict=True)
    for group, (codes, out) in enumerate(parts):
        rounded, scale = round_rows(dy * w_scale[:, group])
        out.copy_(_product(rounded, codes.t()).float() * scale)
    return dx


def weight_gradient(dy: Tensor, x_codes: Tensor, x_scale: Tensor) -> Tensor:
    """dW float32 [N, K] of dy float32 [T, N], x_codes int8 [T, K], x_scale float32 [T, 1]."""
    dw = dy.new_zeros(dy.shape[1], x_codes.shape[1])
    if dy.shape[0] == 0:
        return dw
    for block, codes in zip((dy * x_scale).split(BLOCK_TOKENS), x_codes.split(BLOCK_TOKENS), strict=True):
        rounded, scale = round_columns(block)
        dw += _product(rounded.t(), codes.t()).float() * scale
    return dw


def int8_product(x_codes: Tensor, x_scale: Tensor, w_codes: Tensor, w_scale: Tensor, bias: Tensor | None) -> Tensor:
    """y float32 [T, N] of x_codes int8 [T, K], x_scale [T, 1], w_codes int8 [N, K], w_scale float32 [N], bias [N].

    Raises KernelError for more than `MAX_INT8_INPUTS` inputs.
    """
    check_int8_inputs(x_codes.shape[1])
    y = (_product(x_codes, w_codes).float() * w_scale) * x_scale
    return y if bias is None else y + bias


def check_groups(num_inputs: int, num_groups: int) -> None:
    """Raise KernelError unless the groups have the same number of inputs, at least one."""
    if num_groups < 1 or num_inputs < num_groups or num_inputs % num_groups:
        raise KernelError(
            f"{num_groups} scales a row do not divide the {num_inputs} inputs of this weight. "
            "Choose a `weight.group_size` that does."
        )


def check_int8_inputs(num_inputs: int) -> None:
    """Raise KernelError where an int32 sum of int8 products may overflow."""
    if not 1 <= num_inputs <= MAX_INT8_INPUTS:
        raise KernelError(
            f"An int8 product of {num_inputs} inputs is outside 1 to {MAX_INT8_INPUTS}, beyond which an int32 sum may "
            "overflow. Multiply such a weight in floats."
        )


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The exact integers a b^T, as float64: a int8 [R, D], b int8 [C, D]."""
    with torch.autocast(a.device.type, enabled=False):
        return a.double() @ b.double().T
