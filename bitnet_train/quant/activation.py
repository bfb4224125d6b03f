"""Layer inputs to codes with one scale per token, always in float32.

    int8   s = 127 / max(max|x|, 1e-5);  codes = clamp(round(x * s), -128, 127);  scale = 1 / s      arXiv 2310.11453
    int4   s = 7 / max(max|x|, 1e-5);    codes = clamp(round(x * s), -8, 7);      scale = 1 / s      arXiv 2411.04965
    sign   codes = where(x >= 0, +1, -1);  scale = mean|x|                                           arXiv 1603.05279
    none   not quantised

int4 scales by the maximum, where the paper takes the mean: then it is int8 with fewer codes, and no input is clipped.
Rounding is half to even. A NaN input gives a NaN scale, hence a NaN output: it does not vanish in the integers. Every
quotient is rounded once, and the mean is taken in float64 and then rounded: the order of its sum does not show in
float32 (but for a token in millions), so compiled quantisers (csrc/core/quantize_token.h) give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.errors import ConversionError
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.quant.straight_through import straight_through

_CODES = {"int8": (-128, 127), "int4": (-8, 7)}
_SMALLEST_MAXIMUM = 1e-5  # keeps s finite for an all-zero token; the value of arXiv 2402.17764's reference


def code_range(name: str) -> tuple[int, int]:
    """Lowest and highest code of an integer scheme; ConversionError for one that is not described above."""
    if name not in _CODES:
        raise ConversionError(f"`activation.name={name}` has no integer codes. Those that have: {', '.join(_CODES)}.")
    return _CODES[name]


def quantize_activation(x: Tensor, scheme: ActivationScheme) -> tuple[Tensor, Tensor]:
    """Codes int8 of the shape of x [..., K] and scale float32 [..., 1]. `scheme.name` must not be "none"."""
    codes, scale = _float_codes(x.detach().float(), scheme)
    return codes.to(torch.int8), scale


def fake_quantize_activation(x: Tensor, scheme: ActivationScheme) -> Tensor:
    """scale * codes in the shape and dtype of x, with an identity straight-through gradient; "none" returns x."""
    if scheme.name == "none":
        return x
    with torch.no_grad():
        codes, scale = _float_codes(x.detach().float(), scheme)
        value = (codes * scale).to(x.dtype)
    return straight_through(x, value)


@torch.no_grad()
def quantize_with_value(x: Tensor, scheme: ActivationScheme, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Codes int8 [..., K], scale float32 [..., 1], and `fake_quantize_activation(x)` in `dtype`; no gradient."""
    codes, scale = _float_codes(x.detach().float(), scheme)
    return codes.to(torch.int8), scale, (codes * scale).to(x.dtype).to(dtype)


def dequantize_activation(codes: Tensor, scale: Tensor, x_dtype: torch.dtype, dtype: torch.dtype) -> Tensor:
    """The value of `quantize_with_value` again, for an input that had `x_dtype`."""
    return (codes * scale).to(x_dtype).to(dtype)


def _float_codes(x: Tensor, scheme: ActivationScheme) -> tuple[Tensor, Tensor]:
    assert scheme.name != "none", "the `none` scheme has no codes"
    if scheme.name == "sign":
        return torch.where(x >= 0, 1.0, -1.0), x.abs().double().mean(dim=-1, keepdim=True).float()
    lowest, highest = code_range(scheme.name)
    largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=_SMALLEST_MAXIMUM)
    inverse = torch.full_like(largest, highest) / largest  # `127.0 / largest` would be 127 * (1 / largest) in torch
    return torch.round(x * inverse).clamp_(lowest, highest), 1.0 / inverse
