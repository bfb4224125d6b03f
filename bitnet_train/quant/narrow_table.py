"""Tables in 4 or 5 bits: int8 tables (`quant.int8_table`) whose groups of inputs hold small multiples of an integer.

    w[n,k] ~ scale[n] * codes[n,k]          codes[n,k] = m[n,g] * c[n,k], int8, g = k // 32
    c in -C..C                              C = 2^(bits-1) - 1: 7 in 4 bits, 15 in 5
    m in 1..M                               M = 16 in 4 bits, 8 in 5, so that M * C is 112 or 120

What computes sees an int8 table with one float16 scale a row; only this rounding and the bytes on disk
(`formats.narrow_codes`) know of the bits. The law of a row, in float32, rounding half to even:

    scale = float16(max|w| / (M * C)), at least 2^-24
    m     = ceil(a / (scale * C)), from 1 to M, with a = max|w| of the group; then, until it stays, m = ceil(n / C) or 1
            with n = m * min(C, round(a / (scale * m))), the largest code of the group: no smaller m could have it
    c     = clamp(round(w / (scale * m)), -C, C)

Rounding twice is rounding once: values, codes and scale. The group of a row's largest weight has m = M and |c| = C, or,
where float16 is too coarse for that (scales below 2^-20), the scale is lowered until it comes back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.quant.int8_table import CHUNK_ROWS, require_scales, scale_of

GROUP_INPUTS = 32
"""Inputs under one multiplier."""


@torch.no_grad()
def quantize_narrow(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes m * c int8 [V, K] and scale float16 [V] of a float table [V, K].

    Raises ConversionError when a weight is not finite, or a row's scale is beyond float16.
    """
    weight = weight.detach().float()
    scale, multiplier = _law(weight, bits)
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    parts = weight, scale.float().unsqueeze(1), multiplier, codes
    for rows, row_scale, m, into in zip(*(part.split(CHUNK_ROWS) for part in parts), strict=True):
        each = _an_input(m, weight.shape[1])
        into.copy_(_rounded(rows / (each * row_scale), bits).mul_(each))
    return codes, scale


@torch.no_grad()
def round_narrow(weight: Tensor, bits: int, out: Tensor) -> None:
    """Write the table that the narrow one of a float32 table [V, K] stands for to `out`, which may be it.

    Raises as `quantize_narrow` does, with nothing changed.
    """
    scale, multiplier = _law(weight, bits)
    parts = weight, multiplier.mul_(scale.float().unsqueeze(1)), out
    for rows, steps, rounded in zip(*(part.split(CHUNK_ROWS) for part in parts), strict=True):
        each = _an_input(steps, weight.shape[1])
        _rounded(torch.div(rows, each, out=rounded), bits).mul_(each).add_(0.0)  # and no -0


def largest_code(bits: int) -> int:
    """Return C."""
    return 2 ** (bits - 1) - 1


def largest_multiplier(bits: int) -> int:
    """Return M."""
    return min(16, 127 // largest_code(bits))


def _rounded(multiples: Tensor, bits: int) -> Tensor:
    largest = largest_code(bits)
    return multiples.round_().clamp_(-largest, largest)


def _an_input(of_groups: Tensor, num_inputs: int) -> Tensor:
    """What groups [V, G] have, for each of their inputs [V, K]."""
    return of_groups.repeat_interleave(GROUP_INPUTS, dim=1)[:, :num_inputs]


def _law(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The scales float16 [V] and the multipliers float32 [V, G] of a float32 table; each scale is lowered at most."""
    groups = _group_maxima(weight)
    largest, top_code = groups.amax(dim=1), largest_multiplier(bits) * largest_code(bits)
    scale = scale_of(largest, top_code)
    require_scales(scale, largest, weight.shape, bits=bits, largest_code=top_code)
    while True:
        multiplier, tops = settled(groups, scale.float().unsqueeze(1), bits)
        again = scale_of(tops.amax(dim=1) * scale.float(), top_code)
        if torch.equal(again, scale):
            return scale, multiplier
        scale = again


def _group_maxima(weight: Tensor) -> Tensor:
    """The largest magnitude of every group, [V, G]; the last of a row may be shorter."""
    num_rows, num_inputs = weight.shape
    missing = -num_inputs % GROUP_INPUTS
    found = weight.new_empty(num_rows, (num_inputs + missing) // GROUP_INPUTS)
    for rows, into in zip(weight.split(CHUNK_ROWS), found.split(CHUNK_ROWS), strict=True):
        whole = F.pad(rows, (0, missing)) if missing else rows
        torch.amax(whole.abs().unflatten(1, (-1, GROUP_INPUTS)), dim=-1, out=into)
    return found


def settled(groups: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The multipliers [V, G] that rounding the rounded groups would find again, and the largest m * c of each."""
    largest = largest_code(bits)
    multiplier = torch.ceil(groups / (scale * largest)).clamp_(1, largest_multiplier(bits))
    while True:
        tops = torch.round(groups / (scale * multiplier)).clamp_(max=largest).mul_(multiplier)
        again = torch.ceil(tops / largest).clamp_(min=1)
        if torch.equal(again, multiplier):
            return multiplier, tops
        multiplier = again
