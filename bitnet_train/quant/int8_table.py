"""Tables that are not 1-bit, the token embedding and the head, in 8 bits: codes int8 with one float16 scale a row.

    scale[n] = float16(max|w[n]| / 127), at least 2^-24          codes[n] = clamp(round(w[n] / scale[n]), -127, 127)

The law is the package's own, `w ~ scale * codes`. Rounding is half to even, in float32; 2^-24 is the smallest number
that float16 has, so that a row of zeros has a scale too. The error of a weight is at most half a scale, or slightly
more where the float16 scale was rounded down: 0.4 % of the row's largest magnitude. Rounding twice is rounding once:
the largest weight of a row comes back as the 127th multiple of its scale, or, where float16 is so coarse (scales below
2^-17) that it would not, the scale is lowered until it does. So a table that was trained rounded (`quant.stored`) is
packed as the very codes it was trained with.

Inputs of a product with such a table are taken to 16 bits, one scale a token (`quantize_int16`), so that the 8 bits of
the table are what limits the precision:

    s = 32767 / max(max|x|, 1e-5);   codes = clamp(round(x * s), -32767, 32767);   scale = 1 / s

A token with a NaN or an infinity has codes 0 and the scale NaN, so that it does not vanish in the integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.errors import ConversionError

_LARGEST_CODE = 127
_SMALLEST_SCALE = 2.0**-24
_LARGEST_INPUT_CODE = 32767.0
CHUNK_ROWS = 256
"""Rows that are rounded at a time: they stay in the processor's cache."""
_SMALLEST_MAXIMUM = 1e-5  # as for int8 activations: keeps s finite for a token of zeros


@torch.no_grad()
def quantize_table(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [V, K] and scale float16 [V] of a float table [V, K].

    Raises ConversionError when a weight is not finite, or a row's scale is beyond float16.
    """
    weight = weight.detach().float()
    scale = _scale(weight)
    codes = (weight / scale.float().unsqueeze(1)).round_().clamp_(-_LARGEST_CODE, _LARGEST_CODE)
    return codes.to(torch.int8), scale


@torch.no_grad()
def round_table(weight: Tensor, out: Tensor) -> None:
    """Write the table that the int8 one of a float32 table [V, K] stands for, scale * codes, to `out`, which may be it.

    Some rows at a time, which stay in the processor's cache: a third of the time. Raises as `quantize_table` does, with
    nothing changed.
    """
    parts = weight, _scale(weight).float().unsqueeze(1), out
    for rows, scale, rounded in zip(*(part.split(CHUNK_ROWS) for part in parts), strict=True):
        torch.div(rows, scale, out=rounded)
        rounded.round_().clamp_(-_LARGEST_CODE, _LARGEST_CODE).mul_(scale).add_(0.0)  # and no -0


def _scale(weight: Tensor) -> Tensor:
    """The scales float16 [V] of a float32 table."""
    largest = torch.maximum(weight.amax(dim=1), -weight.amin(dim=1))
    scale = scale_of(largest, _LARGEST_CODE)
    require_scales(scale, largest, weight.shape, bits=8, largest_code=_LARGEST_CODE)
    return _settled(scale, largest)


def scale_of(largest: Tensor, largest_code: int) -> Tensor:
    """The scales float16 [V] of rows with these largest magnitudes, float32 [V]; infinite where those are too large."""
    return (largest / largest_code).to(torch.float16).clamp(min=_SMALLEST_SCALE)


def require_scales(scale: Tensor, largest: Tensor, shape: torch.Size, *, bits: int, largest_code: int) -> None:
    """Raise ConversionError for a row of a table [V, K] that no finite float16 scale can hold."""
    bad = ~torch.isfinite(scale)
    if bad.any():
        row = int(torch.nonzero(bad)[0])
        raise ConversionError(
            f"Row {row} of a {shape[0]} x {shape[1]} table has a weight of magnitude {float(largest[row]):g}; an "
            f"int{bits} table holds finite weights up to {largest_code * 65504}. "
            "Leave `export.embedding` and `export.head` at exact, and set `weight.tables=exact`."
        )


def _settled(scale: Tensor, largest: Tensor) -> Tensor:
    """The float16 scales that rounding the rounded rows would find again; each is lowered at most down to 2^-24."""
    while True:
        top = torch.round(largest / scale.float()).clamp_(max=_LARGEST_CODE) * scale.float()
        again = scale_of(top, _LARGEST_CODE)
        if torch.equal(again, scale):
            return scale
        scale = again


def quantize_int16(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int16 [T, K] and scale float32 [T, 1] of inputs float32 [T, K]."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    s = torch.full_like(largest, _LARGEST_INPUT_CODE) / largest.clamp(min=_SMALLEST_MAXIMUM)
    codes = torch.round(x * s).clamp_(-_LARGEST_INPUT_CODE, _LARGEST_INPUT_CODE)
    finite = torch.isfinite(largest)
    return torch.where(finite, codes, 0.0).to(torch.int16), torch.where(finite, 1.0 / s, torch.nan)
