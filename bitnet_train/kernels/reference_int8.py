"""The oracle of the int8 table: 8-bit weights and 16-bit inputs in plain torch, exact, on any device.

    acc[t,n] = sum over k of x16[t,k] * codes[n,k]                  an exact integer, |acc| < 2^22 * K
    y[t,n] = float32(float64(acc) * (float64(scale[n]) * float64(x16_scale[t])))  (+ bias[n], in float32)

The product of the two scales is exact in float64 for a float16 scale of the table, so `y` is rounded twice: to float64
and to float32. The integers come from float64 matrix products, exact while |acc| < 2^53, some rows at a time.

Shapes: T tokens, V rows of the table, K inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.quant.int8_table import quantize_int16

_CHUNK_WEIGHTS = 1 << 22  # converted to float64 at a time: 32 MiB


def int8_linear(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return y float32 [T, V] of x float32 [T, K], codes int8 [V, K], scale float32 [V], bias float32 [V] or None."""
    x_codes, x_scale = quantize_int16(x)
    x_codes, x_scale = x_codes.double(), x_scale.double()
    chunk_rows = max(1, _CHUNK_WEIGHTS // max(1, codes.shape[1]))
    y = x.new_empty(x.shape[0], codes.shape[0])
    with torch.autocast(x.device.type, enabled=False):
        for first in range(0, codes.shape[0], chunk_rows):
            rows = slice(first, first + chunk_rows)
            acc = x_codes @ codes[rows].double().T
            y[:, rows] = (acc * (scale[rows].double() * x_scale)).float()
    return y if bias is None else y.add_(bias)


def int8_rows(token_ids: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Return rows float32 [T, K] = scale * codes for token ids [T]."""
    return codes[token_ids].float() * scale[token_ids].unsqueeze(1)
