"""The layout on disk of a table in 4 or 5 bits (`quant/narrow_table.py`): codes m * c as bit planes and multipliers.

    <table>.codes        uint8 [bits, V, ceil(K / 8)]    plane p holds bit p of c + 2^(bits - 1)
    <table>.multipliers  uint8 [V, ceil(G / 2)]          two of m - 1 a byte, the first low, G = ceil(K / 32)

Input j of a row is bit j % 8 of byte j // 8, lowest first; bits after the last input or multiplier are 0. A row of one
group in 4 bits, m = 2, codes 14, -14, 2, 0 (c = 7, -7, 1, 0, c + 8 = 15, 1, 9, 8):

    plane 0   0b0111       c + 8 is odd          multipliers   0x01
    plane 1   0b0001
    plane 2   0b0001
    plane 3   0b1101

c = -2^(bits - 1) is never written, and m is the smallest that the group can have: ceil(max|m * c| / C) or 1, with
C = 2^(bits - 1) - 1: equal tables have equal bytes. This is numpy alone: the native runtime reads without torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bitnet_train.errors import FormatError

_GROUP_INPUTS = 32
_CHUNK_ROWS = 1024  # unpacked at a time: bits take a byte each on the way


def narrow_shapes(shape: tuple[int, int], bits: int) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the shapes of the stored codes and of the stored multipliers of a table of this shape [V, K]."""
    num_rows, num_inputs = shape
    return (bits, num_rows, -(-num_inputs // 8)), (num_rows, -(-num_inputs // (2 * _GROUP_INPUTS)))


def pack_narrow(codes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack codes int8 [V, K] into planes and multipliers, uint8 of `narrow_shapes`.

    Raises FormatError for a code that its group cannot have.
    """
    plane_shape, multiplier_shape = narrow_shapes((len(codes), codes.shape[1]), bits)
    planes, multipliers = np.empty(plane_shape, np.uint8), np.empty(multiplier_shape, np.uint8)
    for rows in _chunks(len(codes)):
        planes[:, rows], multipliers[rows] = _pack(codes[rows], bits)
    return planes, multipliers


def _pack(codes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    m = _smallest_multipliers(codes, bits)
    c, rest = np.divmod(codes, _of_inputs(m, codes.shape[1]))
    if rest.any() or (m > _largest_multiplier(bits)).any():
        raise FormatError(f"These are no codes of a table in {bits} bits: a group cannot have one of them.")
    offset = (c + np.int8(1 << bits - 1)).view(np.uint8)
    planes = np.stack([np.packbits(offset >> plane & 1, axis=-1, bitorder="little") for plane in range(bits)])
    less_one = (m - 1).view(np.uint8)
    even, odd = less_one[:, ::2], less_one[:, 1::2]
    halves = even.copy()
    halves[:, : odd.shape[1]] |= odd << 4
    return planes, halves


def unpack_narrow(planes: np.ndarray, multipliers: np.ndarray, num_inputs: int, bits: int) -> np.ndarray:
    """Unpack codes m * c int8 [V, K]; the inverse of `pack_narrow`.

    Raises FormatError for shapes that do not fit together, and for bytes that `pack_narrow` cannot have written.
    """
    num_rows = multipliers.shape[0]
    shapes = narrow_shapes((num_rows, num_inputs), bits)
    if (planes.shape, multipliers.shape) != shapes or planes.dtype != np.uint8 or multipliers.dtype != np.uint8:
        raise FormatError(
            f"Codes and multipliers of a table of {num_inputs} inputs in {bits} bits must be uint8 {list(shapes[0])} "
            f"and {list(shapes[1])}, not {planes.dtype} {list(planes.shape)} and {multipliers.dtype} "
            f"{list(multipliers.shape)}. Copy the folder again, or export the model again."
        )
    codes = np.empty((num_rows, num_inputs), np.int8)
    for rows in _chunks(num_rows):
        codes[rows] = _unpack(planes[:, rows], multipliers[rows], num_inputs, bits)
    return codes


def _unpack(planes: np.ndarray, multipliers: np.ndarray, num_inputs: int, bits: int) -> np.ndarray:
    unpacked = np.unpackbits(planes, axis=-1, bitorder="little")
    _require(not unpacked[..., num_inputs:].any(), "codes: bits after the last input are not 0")
    offset = unpacked[0]
    for plane in range(1, bits):
        offset |= unpacked[plane] << plane
    offset = offset[:, :num_inputs]
    _require(bool(offset.all()), f"codes: one is {-(1 << bits - 1)}, which {bits} bits hold and no table has")
    m = _multipliers(multipliers, -(-num_inputs // _GROUP_INPUTS), bits)
    codes = (offset.view(np.int8) - np.int8(1 << bits - 1)) * _of_inputs(m, num_inputs)
    _require(bool((m == _smallest_multipliers(codes, bits)).all()), "multipliers: one is larger than its group needs")
    return codes


def _multipliers(halves: np.ndarray, num_groups: int, bits: int) -> np.ndarray:
    """Return m int8 [V, G]."""
    less_one = np.stack([halves & 15, halves >> 4], axis=-1).reshape(len(halves), -1)
    _require(not less_one[:, num_groups:].any(), "multipliers: bits after the last group are not 0")
    largest = _largest_multiplier(bits)
    _require(bool((less_one < largest).all()), f"multipliers: one is above {largest}")
    return less_one[:, :num_groups].view(np.int8) + np.int8(1)


def _largest_multiplier(bits: int) -> int:
    """Return the largest m: 4 bits hold it less 1, and the largest code is at most 127."""
    return min(16, 127 // _largest_code(bits))


def _largest_code(bits: int) -> int:
    return (1 << bits - 1) - 1


def _smallest_multipliers(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return int8 [V, G]: the smallest m with which the largest code of a group is m * c; 1 for a group of zeros."""
    starts = np.arange(0, codes.shape[1], _GROUP_INPUTS)
    largest = np.maximum.reduceat(np.abs(codes.astype(np.int16)), starts, axis=1)
    return np.maximum(-(-largest // _largest_code(bits)), 1).astype(np.int8)


def _of_inputs(of_groups: np.ndarray, num_inputs: int) -> np.ndarray:
    return np.repeat(of_groups, _GROUP_INPUTS, axis=1)[:, :num_inputs]


def _chunks(num_rows: int) -> Iterator[slice]:
    return (slice(first, first + _CHUNK_ROWS) for first in range(0, num_rows, _CHUNK_ROWS))


def _require(is_right: bool, problem: str) -> None:
    if not is_right:
        raise FormatError(f"{problem}. The table is damaged; export it again.")
