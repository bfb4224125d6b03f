"""The oracle of the integer products of a training step: plain torch, exact integers, float32 around them.

    rounding      largest = max|v| of a line;  inverse = 127 / max(largest, 2^-100);  codes = round(v * inverse)
                  scale = 1 / inverse;  v ~ codes * scale            round half to even, every quotient rounded once
    dx            W ~ step * w (below);  g = dy * step;  codes, r = round the rows of g
                  dx[t,k] = r[t] * float(sum_n codes[t,n] w[n,k])
                  a scale a row: step = alpha, w = S
                  scales of groups: w, step = round the rows of alpha[n,g(k)] S[n,k], but to 31
                  where the largest of a row is that of alpha[n,g] times the largest code there is, 2^k - 1 of k planes
    dW            d = dy * s_x;  codes, r = round the columns of d in each block of 128 tokens
                  dW = 0;  for the blocks in order: dW[n,k] = dW[n,k] + (r[n] * float(sum_t codes[t,n] Qx[t,k]))
    int8 product  y[t,n] = (s_w[n] * float(sum_k Qx[t,k] Qw[n,k])) * s_x[t] (+ bias[n])

in float32, one rounding an operation, none fused; the compiled kernels give these very bits. The token scale of x lies
on the summed axis of dW, so it is folded into dy before rounding, and what the forward saves is x's own codes. Blocks
keep one loud token from silencing the rest. Nearest rounding was enough (no gain from stochastic rounding).

With scales of groups alpha varies along k, and only its size in a row can be folded into dy. Rounded to 6 bits beside
the largest of its row it costs dx as little as rounding dy anew for each group (both leave a median cosine of 0.9999 to
float64, on real activations), and one product takes all groups. Beside the largest of its column it costs more where
rows differ in size. Codes of at most 31 let AVX2 multiply bytes.

A line with a value that is not finite, or that overflows when folded, has codes 0 and a NaN scale: its results are NaN.

Integers: |sum| <= 127 (2^k - 1) N in dx of k planes (127 * 31 N with groups), 127 * 128 * 128 < 2^21 in a block of dW,
2^14 K in the int8 product; N with groups and K are refused beyond `MAX_INT8_INPUTS`. They are computed in float64,
which is exact.

Codes of several planes share the 6 bits with their scales: with three, 1 is 4 / 31 of the largest, not 1 / 7, and with
four 2 / 31, not 1 / 15. On linears of SmolLM2 in groups of 64, with normal dy, dx is off by 1.8, 2.3, 2.7 and 3.1 % for
one to four planes, rounding dy included: a median cosine of 0.9998, 0.9997, 0.9996 and 0.9995 to float64.

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
    "transposed_codes",
    "weight_gradient",
]

BLOCK_TOKENS = 128
"""Tokens of a block of dW, which share a scale in each output."""
MAX_INT8_INPUTS = (2**31 - 1) // 128**2
"""The longest int8 row whose product with another fits int32 for all codes: 131,071 inputs."""

_LARGEST_CODE = 127.0
_LARGEST_SCALED_CODE = 31.0
_SMALLEST_MAXIMUM = 2.0**-100


def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [R, C], at most 127, and scale float32 [R, 1] of values float32 [R, C]."""
    inverse = _inverse(values, _LARGEST_CODE)
    finite = torch.isfinite(values.abs().amax(dim=1, keepdim=True))  # a NaN is the largest
    codes = torch.where(finite, torch.round(values * inverse), 0.0).to(torch.int8)
    return codes, torch.where(finite, 1.0 / inverse, torch.nan)


def _inverse(values: Tensor, largest_code: float) -> Tensor:
    largest = values.abs().amax(dim=1, keepdim=True)
    return torch.full_like(largest, largest_code) / largest.clamp(min=_SMALLEST_MAXIMUM)


def round_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [R, C] and scale float32 [C, 1] of values float32 [R, C]."""
    codes, scale = round_rows(values.t())
    return codes.t().contiguous(), scale


def transposed_codes(w_codes: Tensor, w_scale: Tensor, planes: int = 1) -> tuple[Tensor, Tensor]:
    """Codes w int8 [N, K] and step float32 [N, 1], W ~ step * w, of w_codes int8 [N, K], w_scale [N, G] or [1, 1].

    The codes of a weight of several planes are odd, up to 2^planes - 1.

    Raises KernelError when G does not divide K, and with groups for more than `MAX_INT8_INPUTS` outputs.
    """
    (num_outputs, num_inputs), num_groups = w_codes.shape, w_scale.shape[1]
    check_groups(num_inputs, num_groups)
    if num_groups == 1:
        return w_codes, w_scale.expand(num_outputs, 1)
    check_int8_inputs(num_outputs)
    inverse = _inverse((2**planes - 1) * w_scale, _LARGEST_SCALED_CODE)
    values = w_codes.float() * w_scale.repeat_interleave(num_inputs // num_groups, 1)
    return torch.round(values * inverse).to(torch.int8), 1.0 / inverse


def input_gradient(dy: Tensor, w_codes: Tensor, w_scale: Tensor, planes: int = 1) -> Tensor:
    """dx float32 [T, K] of dy float32 [T, N], w_codes int8 [N, K] of `planes`, w_scale float32 [N, G] or [1, 1].

    Raises KernelError as `transposed_codes` does.
    """
    w, step = transposed_codes(w_codes, w_scale, planes)
    rounded, scale = round_rows(dy * step.t())
    return _product(rounded, w.t()).float() * scale


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
