"""Tables that are not 1-bit, the token embedding and the head, in 8 bits: codes int8 with one float16 scale a row.

    scale[n] = float16(max|w[n]| / 127), at least 2^-24          codes[n] = clamp(round(w[n] / scale[n]), -127, 127)

The law is the package's own, `w ~ scale * codes`. Rounding is half to even, in float32; 2^-24 is the smallest number
that float16 has, so that a row of zeros has a scale too. The error of a weight is at most half a scale, or slightly
more where the float16 scale was rounded down: 0.4 % of the row's largest magnitude. Training knows nothing of it.

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
_SMALLEST_MAXIMUM = 1e-5  # as for int8 activations: keeps s finite for a token of zeros


@torch.no_grad()
def quantize_table(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [V, K] and scale float16 [V] of a float table [V, K].

    Raises ConversionError when a weight is not finite, or a row's scale is beyond float16.
    """
    weight = weight.detach().float()
    largest = weight.abs().amax(dim=1)
    scale = (largest / _LARGEST_CODE).to(torch.float16)
    bad = ~torch.isfinite(scale)
    if bad.any():
        row = int(torch.nonzero(bad)[0])
        raise ConversionError(
            f"Row {row} of a {weight.shape[0]} x {weight.shape[1]} table has a weight of magnitude "
            f"{float(largest[row]):g}; an int8 table holds finite weights up to {_LARGEST_CODE * 65504}. "
            "Leave `export.embedding` and `export.head` at exact."
        )
    scale = scale.clamp(min=_SMALLEST_SCALE)
    codes = torch.round(weight / scale.float().unsqueeze(1)).clamp_(-_LARGEST_CODE, _LARGEST_CODE)
    return codes.to(torch.int8), scale


def quantize_int16(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int16 [T, K] and scale float32 [T, 1] of inputs float32 [T, K]."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    s = torch.full_like(largest, _LARGEST_INPUT_CODE) / largest.clamp(min=_SMALLEST_MAXIMUM)
    codes = torch.round(x * s).clamp_(-_LARGEST_INPUT_CODE, _LARGEST_INPUT_CODE)
    finite = torch.isfinite(largest)
    return torch.where(finite, codes, 0.0).to(torch.int16), torch.where(finite, 1.0 / s, torch.nan)
