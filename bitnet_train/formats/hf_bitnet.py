"""The layout of transformers' `quant_method: bitnet`: four codes a byte, rows strided; one scale a tensor.

    packed[r, k] = OR over i = 0..3 of  (codes[i * R + r, k] + 1) << 2 i            R = N / 4

    byte [r, k]    bits 0-1           bits 2-3           bits 4-5           bits 6-7          00 = -1, 01 = 0, 10 = +1
                   row r              row R + r          row 2 R + r        row 3 R + r

Source: `transformers/integrations/bitnet.py`. Rows are a quarter of the matrix apart, not adjacent, and the pattern 11
is never written. The name `weight_scale` [1] means two things, by the `linear_class` that config.json names, and a file
of one convention read as the other loads without a warning and computes nonsense:

    autobitlinear    weight_scale = scale                output = product * weight_scale
    bitlinear        weight_scale = 1 / scale            output = product / (weight_scale * input scale)

So `bitlinear` stores a number that is rounded once. A scale that is a float16 value comes back exactly all the same:
`1 / weight_scale` is within 2^-22 of it, and float16 values are 2^-11 apart. Shapes: N outputs, K inputs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from bitnet_train.errors import FormatError

LinearClass = Literal["autobitlinear", "bitlinear"]

CODES_A_BYTE = 4
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8).reshape(CODES_A_BYTE, 1, 1)
_NEAR_FLOAT16 = 2.0**-22  # two float32 roundings, of 1 / scale on the way out and of 1 / weight_scale on the way in


def pack_strided(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes int8 [N, K] of -1, 0, +1 into uint8 [N / 4, K].

    Raises FormatError when N is not a multiple of 4 (transformers reads such a file as another shape), for another
    dtype or rank, and for other codes.
    """
    if codes.dtype != torch.int8 or codes.ndim != 2:
        raise FormatError(f"Codes to pack must be int8 [N, K]; got {codes.dtype} {list(codes.shape)}.")
    num_outputs, num_inputs = codes.shape
    if num_outputs % CODES_A_BYTE:
        raise FormatError(
            f"{num_outputs} rows are not a multiple of {CODES_A_BYTE}, and the format keeps four rows in a byte."
        )
    values = codes.numpy(force=True)
    if np.any((values < -1) | (values > 1)):
        raise FormatError(f"Codes must be -1, 0 or +1; got values from {values.min()} to {values.max()}.")
    quarters = (values + 1).view(np.uint8).reshape(CODES_A_BYTE, num_outputs // CODES_A_BYTE, num_inputs)
    return torch.from_numpy(np.bitwise_or.reduce(quarters << _SHIFTS, axis=0))


def unpack_strided(packed: torch.Tensor) -> torch.Tensor:
    """Unpack uint8 [N / 4, K] into codes int8 [N, K]; the inverse of `pack_strided`.

    Raises FormatError for another dtype or rank, and for the bit pattern 11, which stands for no code.
    """
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        raise FormatError(f"Packed codes must be uint8 [N / 4, K]; got {packed.dtype} {list(packed.shape)}.")
    quarters = (packed.numpy(force=True) >> _SHIFTS) & np.uint8(3)
    if np.any(quarters == 3):
        raise FormatError("A packed weight has the bits 11, which stand for no code. The file is damaged.")
    num_rows, num_inputs = packed.shape
    return torch.from_numpy(quarters.reshape(CODES_A_BYTE * num_rows, num_inputs).view(np.int8) - 1)


def to_weight_scale(scale: float, linear_class: LinearClass) -> float:
    """Return the float32 `weight_scale` that stands for a float32 `scale` above 0.

    Of the numbers that `from_weight_scale` turns into this scale, it is the one with the fewest significant bits: a
    file that was read is so written again with the very same scales. Raises FormatError when there is none.
    """
    if linear_class == "autobitlinear":
        return scale
    nearest = np.float32(1) / np.float32(scale)
    around = [np.nextafter(nearest, np.float32(0)), nearest, np.nextafter(nearest, np.float32(np.inf))]
    exact = [
        value for value in around if _is_positive(value) and from_weight_scale(float(value), linear_class) == scale
    ]
    if not exact:
        raise FormatError(
            f"the scale {scale!r} is no reciprocal of a float32 number, and `linear_class=bitlinear` stores reciprocals"
        )
    return float(max(exact, key=_trailing_zeros))


def from_weight_scale(weight_scale: float, linear_class: LinearClass) -> float:
    """Return the float32 scale, `w = scale * code`, that a stored float32 `weight_scale` stands for.

    Raises FormatError when it is not a finite number above 0.
    """
    if not _is_positive(weight_scale):
        raise FormatError(f"`weight_scale` must be a finite number above 0, not {weight_scale!r}.")
    if linear_class == "autobitlinear":
        return weight_scale
    scale = np.float32(1) / np.float32(weight_scale)
    half = np.float16(scale) if scale <= np.finfo(np.float16).max else np.float16(0)
    is_float16 = half >= np.finfo(np.float16).tiny and abs(float(half) - float(scale)) <= _NEAR_FLOAT16 * float(scale)
    return float(half if is_float16 else scale)


def _is_positive(value: float | np.float32) -> bool:
    return bool(np.isfinite(value) and value > 0)


def _trailing_zeros(value: np.float32) -> int:
    bits = int(value.view(np.uint32))
    return (bits & -bits).bit_length()
