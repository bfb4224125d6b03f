"""`planes_v1`: the canonical layout of weight codes on disk, one to four bits per weight.

Each row of a weight [N, K] is written as bit planes, padded with zero bits to whole 64-bit words:

    binary    plane 0  sign     bit 1 = +1, bit 0 = -1
    k-plane   plane p  bit p of (code + 2^k - 1) / 2: code = sum over p of 2^p (2 bit - 1); k = 1 is binary
    ternary   plane 0  nonzero  bit 1 = the weight is +1 or -1
              plane 1  sign     bit 1 = +1; the sign bit of a zero weight is 0

Least significant bit first, so input j is bit j % 8 of byte j // 8. One row of a binary weight with K = 11:

    byte 0                              byte 1                            bytes 2..7
    bit 0  1  2  3  4  5  6  7          bit 0  1  2   3  4  5  6  7
     k  0  1  2  3  4  5  6  7           k  8  9  10  padding: 0          padding: 0

The bytes are the same on every machine; a kernel rearranges them when it loads them. Because padding is zero and
checked, two equal weights have equal bytes, and a hash of the planes is a hash of the codes.

Shapes: P planes, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from bitnet_train.errors import FormatError

NUM_PLANES: Mapping[str, int] = MappingProxyType(
    {"binary": 1, **{f"{planes}-plane": planes for planes in (2, 3, 4)}, "ternary": 2}
)
"""Planes of each set of codes."""

WORD_BITS = 64
"""Rows are padded to whole words of this many bits."""


def row_bytes(num_inputs: int) -> int:
    """Return the bytes of one row of one plane: whole 64-bit words."""
    return WORD_BITS // 8 * -(-num_inputs // WORD_BITS)


def pack_planes(codes: torch.Tensor, name: str) -> torch.Tensor:
    """Pack codes int8 [N, K] of the set `name` (`quant.scheme.CODES`) into planes uint8 [P, N, row_bytes(K)].

    Raises FormatError for another dtype or rank, or a code that the set does not have.
    """
    num_planes = _num_planes(name)
    if codes.dtype != torch.int8 or codes.ndim != 2:
        raise FormatError(f"Codes to pack must be int8 [N, K]; got {_describe(codes)}.")
    values = codes.numpy(force=True)
    largest = 1 if name == "ternary" else 2**num_planes - 1
    is_right = (np.abs(values.astype(np.int16)) <= largest) & ((name == "ternary") | (values & 1 == 1))
    if not is_right.all():
        raise FormatError(
            f"Codes of a {name} weight must be {_allowed_codes(name)}; got {values[~is_right][0]} among values from "
            f"{values.min()} to {values.max()}. Quantise the weight before packing it."
        )
    if name == "ternary":
        planes = [values != 0, values > 0]
    else:
        number = (values + np.int8(largest)) >> 1
        planes = [number >> plane & 1 for plane in range(num_planes)]
    return torch.from_numpy(pack_bits(np.stack(planes), row_bytes(values.shape[1])))


def unpack_planes(planes: torch.Tensor, num_inputs: int, name: str) -> torch.Tensor:
    """Unpack planes uint8 [P, N, row_bytes(K)] into codes int8 [N, K]; the inverse of `pack_planes`.

    Raises FormatError for a wrong shape or dtype, and for bytes that `pack_planes` cannot have written: a padding bit
    that is set, or a zero weight with a sign bit.
    """
    return codes_from_bits(plane_bits(planes, num_inputs, name), name)


def codes_from_bits(bits: np.ndarray, name: str) -> torch.Tensor:
    """Turn plane bits, uint8 0 or 1, [P, N, K] into codes int8 [N, K]; FormatError for another number of planes."""
    if len(bits) != _num_planes(name):
        raise FormatError(f"Bits of a {name} weight are {_num_planes(name)} planes; got {len(bits)}.")
    if name == "ternary":
        return torch.from_numpy(np.where(bits[0], 2 * bits[1].view(np.int8) - 1, np.int8(0)))
    return torch.from_numpy(sum((1 << p) * (2 * plane.view(np.int8) - 1) for p, plane in enumerate(bits)))


def plane_bits(planes: torch.Tensor, num_inputs: int, name: str) -> np.ndarray:
    """Check planes as `unpack_planes` does and return their bits, uint8 0 or 1, [P, N, K]."""
    num_planes, num_bytes = _num_planes(name), row_bytes(num_inputs)
    if planes.dtype != torch.uint8 or planes.ndim != 3 or planes.shape[::2] != (num_planes, num_bytes):
        raise FormatError(
            f"Planes of a {name} weight with {num_inputs} inputs must be uint8 [{num_planes}, N, {num_bytes}]; "
            f"got {_describe(planes)}. The tensor is damaged, or belongs to a layer of another shape or scheme."
        )
    bits = np.unpackbits(planes.numpy(force=True), axis=-1, bitorder="little")
    if bits[..., num_inputs:].any():
        raise FormatError(
            f"Planes of a {name} weight with {num_inputs} inputs have padding bits that are not 0. "
            "The tensor is damaged; export it again."
        )
    bits = bits[..., :num_inputs]
    if name == "ternary" and np.any(bits[1] > bits[0]):
        raise FormatError("Planes of a ternary weight have a sign bit on a zero weight. Export it again.")
    return bits


def pack_bits(bits: np.ndarray, num_bytes: int) -> np.ndarray:
    """Pack bits [..., K] (bool or 0/1) into bytes uint8 [..., num_bytes], lowest bit first, zeros after K."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    padding = [(0, 0)] * (packed.ndim - 1) + [(0, num_bytes - packed.shape[-1])]
    return np.pad(packed, padding)


def _num_planes(name: str) -> int:
    if name not in NUM_PLANES:
        raise FormatError(f"No planes are defined for weight codes {name!r}. Allowed: {', '.join(NUM_PLANES)}.")
    return NUM_PLANES[name]


def _allowed_codes(name: str) -> str:
    if name == "ternary":
        return "-1, 0 or +1"
    largest = 2 ** NUM_PLANES[name] - 1
    return "-1 or +1" if largest == 1 else f"odd numbers from {-largest} to +{largest}"


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
