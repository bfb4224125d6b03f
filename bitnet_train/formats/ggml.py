"""The block types of ggml that hold our weights exactly: Q1_0, Q2_0, TQ1_0, TQ2_0, and of several planes Q4_0, Q5_0.

A row of K weights is K / W blocks of W weights under one float16 scale d, little-endian:

    Q1_0    128 weights, 18 bytes   d, then 16 bytes: weight j is bit j % 8 of byte j // 8; 1 = +d, 0 = -d
    Q2_0     64 weights, 18 bytes   d, then 16 bytes: weight j is bits 2 (j % 4) of byte j // 4, code + 1
    TQ1_0   256 weights, 54 bytes   48 bytes of 5 codes in base 3, 4 bytes of 4 codes, then d
    TQ2_0   256 weights, 66 bytes   64 bytes, then d: byte m of 32-byte half h holds weights 128 h + m + 32 n at
                                    bits 2 n, code + 1
    Q4_0     32 weights, 18 bytes   d, then 16 bytes: weight j is the low half of byte j, j + 16 the high; code + 8
    Q5_0     32 weights, 22 bytes   d, then 4 bytes: bit j % 8 of byte j // 8 is bit 4 of weight j, and 16 bytes: its
                                    other bits as in Q4_0; code + 16

    byte of Q2_0     bit 0 1 | 2 3 | 4 5 | 6 7        byte m of TQ2_0     bit 0 1 | 2 3  | 4 5  | 6 7
    weight           4 b     | +1  | +2  | +3         weight              m       | m+32 | m+64 | m+96

A base-3 byte of TQ1_0 is ceil(256 q / 243) with q = sum of (code_n + 1) 3^(4-n): multiplying it by 3^n modulo 256 and
taking floor(3 x / 256) gives code_n + 1 back. Bytes 0..31 hold weights m + 32 n, bytes 32..47 weights 160 + m + 16 n,
bytes 48..51 weights 240 + m + 4 n with n < 4.

Q4_0 is the smallest with the odd codes to +-3 and +-7 under one scale: Q2_0 has 0 and 2 among its four, and the types
of 3 bits a scale of 6 bits for every 16 weights. Q5_0 is the smallest with those to +-15, of four planes. They take 4.5
and 5.5 bits a weight, so they are for weights of several planes.

Source: ggml-common.h and ggml-quants.c of llama.cpp. There a scale is computed from floats (mean for Q1_0, largest for
the others); here codes and scales are given, and what is read back is code * d bit for bit. A block whose weights are
all 0 keeps its scale: ours, or the 0 that llama.cpp would write.

Shapes: N rows, K weights a row, W weights a block, B = K / W blocks a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch

from bitnet_train.errors import FormatError
from bitnet_train.formats.planes import NUM_PLANES, plane_bits

_SCALE_BYTES = 2
_WEIGHTS_AT_A_TIME = 1 << 18  # intermediates of this many bytes stay in a cache
_SPREAD = np.packbits(
    np.insert(
        np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), range(1, 9), 0, axis=1
    ),
    axis=1,
    bitorder="little",
).view("<u2")[:, 0]  # bit i of a byte to bit 2 i of two bytes


@dataclass(frozen=True)
class GgmlType:
    """One block type: how llama.cpp numbers it, its sizes, and the codes it can hold."""

    name: str
    """As in `export.type`."""
    id: int
    """`enum ggml_type`: the type of a tensor in a GGUF file."""
    file_type: int
    """`enum llama_ftype`: `general.file_type` of a file that is mostly of this type."""
    block_weights: int
    block_bytes: int
    codes: tuple[int, ...]
    """Every code a block can hold; a scheme fits when its codes are among them."""
    offset: int = 1
    """What is added to a code to store it."""
    is_one_bit: bool = True
    """Whether it is for codes -1, 0, +1: what a file of this type is read as."""

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file per weight, scales included."""
        return 8 * self.block_bytes / self.block_weights

    def row_bytes(self, num_inputs: int) -> int:
        """Bytes of one row of K weights, K a multiple of the block."""
        assert num_inputs % self.block_weights == 0
        return num_inputs // self.block_weights * self.block_bytes


_TYPES = (
    GgmlType("q1_0", 41, 40, 128, 18, (-1, 1)),
    GgmlType("q2_0", 42, 41, 64, 18, (-1, 0, 1, 2)),
    GgmlType("tq1_0", 34, 36, 256, 54, (-1, 0, 1)),
    GgmlType("tq2_0", 35, 37, 256, 66, (-1, 0, 1)),
    GgmlType("q4_0", 2, 2, 32, 18, tuple(range(-8, 8)), offset=8, is_one_bit=False),
    GgmlType("q5_0", 6, 8, 32, 22, tuple(range(-16, 16)), offset=16, is_one_bit=False),
)
GGML_TYPES: Mapping[str, GgmlType] = MappingProxyType({kind.name: kind for kind in _TYPES})
"""The block types by name."""

SCHEME_CODES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {name: (-1, 0, 1) if name == "ternary" else tuple(range(1 - 2**k, 2**k, 2)) for name, k in NUM_PLANES.items()}
)
"""Every set of codes that a layer can have."""


class _Scheme(Protocol):
    @property
    def code_set(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def granularity(self) -> str: ...
    @property
    def group_size(self) -> int: ...


class OneBitWeight(Protocol):
    """What decides whether a layer fits a block type; a packed layer's entry in the manifest has it."""

    @property
    def scheme(self) -> _Scheme:
        """Its codes, and what one scale covers."""
        ...

    @property
    def num_inputs(self) -> int:
        """Weights of a row."""
        ...


def ggml_type(name: str) -> GgmlType:
    """Return a block type by its name. Raises FormatError for an unknown one."""
    if name not in GGML_TYPES:
        raise FormatError(f"{name!r} is not a known ggml block type. Allowed: {', '.join(GGML_TYPES)}.")
    return GGML_TYPES[name]


def why_not(layer: OneBitWeight, type_name: str) -> str:
    """Say why this layer does not fit a block type, and what would; nothing when it fits."""
    kind, scheme = ggml_type(type_name), layer.scheme
    missing = [code for code in SCHEME_CODES[scheme.code_set] if code not in kind.codes]
    if missing:
        return f"{kind.name} has no code {missing[0]}, which {scheme.title} weights need"
    if not kind.is_one_bit and SCHEME_CODES[scheme.code_set][-1] == 1:
        return f"{kind.name} is for weights of several planes, and {scheme.title} weights have smaller types"
    if layer.num_inputs % kind.block_weights:
        return f"its {layer.num_inputs} inputs are not a multiple of the {kind.block_weights} weights of a block"
    if scheme.granularity == "group" and scheme.group_size % kind.block_weights:
        return (
            f"a block of {kind.block_weights} weights has one scale, and this layer has one for every "
            f"{scheme.group_size} inputs"
        )
    return ""


def encode(codes: torch.Tensor, scale: torch.Tensor, type_name: str) -> torch.Tensor:
    """Write codes int8 [N, K] and their scales into blocks, uint8 [N, row_bytes(K)].

    `scale` is float of shape [1, 1], [N, 1] or [N, G] where a group of K / G weights is one block or several.

    Raises
    ------
    FormatError
        For another dtype or shape, a code that the type does not have, or a scale that no float16 holds exactly.
    """
    kind = ggml_type(type_name)
    _check_codes(codes, kind)
    values = codes.numpy(force=True)
    return _encode(lambda rows: (values[rows] + np.int8(kind.offset)).view(np.uint8), values.shape, scale, kind)


def encode_planes(
    planes: torch.Tensor, num_inputs: int, code_set: str, scale: torch.Tensor, type_name: str
) -> torch.Tensor:
    """Write planes uint8 [P, N, bytes] of `planes.py` and their scales into blocks; as `encode`, and faster.

    Raises FormatError as `encode` does, and for planes that `pack_planes` cannot have written.
    """
    kind = ggml_type(type_name)
    _check_code_set(code_set, num_inputs, kind)
    plane_bits(planes[:, :0], num_inputs, code_set)  # their shape and dtype
    shape = (planes.shape[1], num_inputs)
    if kind.name == "q1_0":
        return _encode(lambda rows: planes[0, rows].numpy(force=True), shape, scale, kind, _copy_bits)
    if kind.name == "q2_0":
        return _encode(lambda rows: _two_bits(planes[:, rows], code_set), shape, scale, kind, _copy_bits)

    def digits_of(rows: slice) -> np.ndarray:
        return _digits(plane_bits(planes[:, rows], num_inputs, code_set), code_set, kind.offset)

    return _encode(digits_of, shape, scale, kind)


def decode(blocks: torch.Tensor, num_inputs: int, type_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read blocks uint8 [N, row_bytes(K)]: codes int8 [N, K] and scales float32 [N, B]; the inverse of `encode`.

    Two bits can also say 2, which `encode` writes for Q2_0 only; the caller decides whether its model has that code.
    Raises FormatError for another dtype or shape, and for a scale that is infinite or NaN.
    """
    kind = ggml_type(type_name)
    fits = num_inputs % kind.block_weights == 0
    if blocks.dtype != torch.uint8 or blocks.ndim != 2 or not fits or blocks.shape[1] != kind.row_bytes(num_inputs):
        raise FormatError(
            f"Blocks of {kind.name} with {num_inputs} weights a row must be uint8 [N, {kind.block_bytes} for every "
            f"{kind.block_weights} weights]; got {_describe(blocks)}. The tensor is damaged, or of another type."
        )
    num_rows = blocks.shape[0]
    raw = np.ascontiguousarray(blocks.numpy(force=True)).reshape(
        num_rows, num_inputs // kind.block_weights, kind.block_bytes
    )
    quants, scales = _parts(raw, kind)
    scale = scales.copy().view("<f2")[..., 0].astype(np.float32)
    if not np.isfinite(scale).all():
        raise FormatError(f"A block of {kind.name} has a scale that is infinite or NaN. The tensor is damaged.")
    codes = np.empty((num_rows, raw.shape[1], kind.block_weights), np.int8)
    if codes.size:
        _UNPACK[kind.name](quants, codes)
    return torch.from_numpy(codes.reshape(num_rows, num_inputs)), torch.from_numpy(scale)


def dequantize_blocks(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Multiply every block of codes [N, K] by its scale [N, B]: float32 [N, K], exact."""
    num_rows, num_blocks = scale.shape
    blocks = codes.reshape(num_rows, num_blocks, codes.shape[1] // max(1, num_blocks))
    return (blocks.float() * scale.unsqueeze(-1)).reshape(codes.shape)


def _encode(
    values_of: Callable[[slice], np.ndarray],
    shape: tuple[int, ...],
    scale: torch.Tensor,
    kind: GgmlType,
    pack: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> torch.Tensor:
    """Fill blocks a few rows at a time: `pack` puts what `values_of` gives of them, code + offset, into quants."""
    num_rows, num_blocks = shape[0], shape[1] // kind.block_weights
    blocks = np.empty((num_rows, num_blocks, kind.block_bytes), np.uint8)
    quants, scales = _parts(blocks, kind)
    scales[...] = _block_scales(scale, num_rows, num_blocks, kind)
    step = max(1, _WEIGHTS_AT_A_TIME // max(1, shape[1]))
    for first in range(0, num_rows if num_blocks else 0, step):
        rows = slice(first, first + step)
        some = quants[rows]
        (pack or _PACK[kind.name])(values_of(rows).reshape(*some.shape[:2], -1), some)
    return torch.from_numpy(blocks.reshape(num_rows, kind.row_bytes(shape[1])))


def _check_code_set(code_set: str, num_inputs: int, kind: GgmlType) -> None:
    if code_set not in SCHEME_CODES:
        raise FormatError(f"No ggml block holds weights of codes {code_set!r}. Allowed: {', '.join(SCHEME_CODES)}.")
    missing = [code for code in SCHEME_CODES[code_set] if code not in kind.codes]
    if missing or num_inputs % kind.block_weights:
        raise FormatError(
            f"{code_set} weights with {num_inputs} inputs do not fit {kind.name}: its codes are "
            f"{', '.join(map(str, kind.codes))}, and its blocks hold {kind.block_weights} weights."
        )


def _digits(bits: np.ndarray, code_set: str, offset: int) -> np.ndarray:
    """Code + offset from plane bits [P, N, K]: nonzero and sign of ternary, else code = 2 (their number) - 2^P + 1."""
    if code_set == "ternary":
        return (bits[1] << 1) + (bits[0] ^ 1) + np.uint8(offset - 1)
    digits = np.full(bits.shape[1:], offset + 1 - (1 << len(bits)), np.uint8)
    for plane, bit in enumerate(bits):
        digits += bit << (plane + 1)
    return digits


def _two_bits(planes: torch.Tensor, code_set: str) -> np.ndarray:
    """Code + 1 in two bits a weight from planes without padding: low bit 1 for a zero weight, high bit the sign."""
    values = planes.numpy(force=True)
    high = _SPREAD[values[-1]] << 1
    if code_set == "binary":
        return high.astype("<u2").view(np.uint8)
    if np.any(values[1] & ~values[0]):
        raise FormatError("Planes of a ternary weight have a sign bit on a zero weight. Export it again.")
    return (high | _SPREAD[~values[0]]).astype("<u2").view(np.uint8)


def _parts(blocks: np.ndarray, kind: GgmlType) -> tuple[np.ndarray, np.ndarray]:
    """Views of the quants and of the two bytes of d of each block."""
    if kind.name in ("tq1_0", "tq2_0"):
        return blocks[..., :-_SCALE_BYTES], blocks[..., -_SCALE_BYTES:]
    return blocks[..., _SCALE_BYTES:], blocks[..., :_SCALE_BYTES]


def _block_scales(scale: torch.Tensor, num_rows: int, num_blocks: int, kind: GgmlType) -> np.ndarray:
    """The scale of each block as bytes of float16, [N or 1, B, 2]."""
    shape = tuple(scale.shape)
    of_rows = len(shape) == 2 and shape[1] > 0 and (shape == (1, 1) or shape[0] == num_rows)
    if not of_rows or num_blocks % shape[1]:
        raise FormatError(
            f"Scales of {num_rows} rows of {num_blocks} {kind.name} blocks must be [1, 1], [{num_rows}, 1] or "
            f"[{num_rows}, G] with whole blocks under each; got {list(shape)}."
        )
    values = scale.float().numpy(force=True)
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    wrong = (half.astype(np.float32) != values) | ~np.isfinite(half)
    if wrong.any():
        raise FormatError(
            f"A scale of {float(values[wrong][0])!r} is no float16, and a {kind.name} block has no other. "
            "Convert with `weight.scale_dtype=float16`."
        )
    return np.repeat(half, num_blocks // shape[1], axis=1)[..., np.newaxis].view(np.uint8)


def _check_codes(codes: torch.Tensor, kind: GgmlType) -> None:
    if codes.dtype != torch.int8 or codes.ndim != 2 or codes.shape[1] % kind.block_weights:
        raise FormatError(
            f"Codes for {kind.name} must be int8 [N, K] with K a multiple of {kind.block_weights}; got "
            f"{_describe(codes)}."
        )
    if not codes.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(codes))
    if low < kind.codes[0] or high > kind.codes[-1] or (0 not in kind.codes and bool((codes == 0).any())):
        allowed = ", ".join(map(str, kind.codes))
        raise FormatError(f"Codes for {kind.name} must be among {allowed}; got values from {low} to {high}.")


def _copy_bits(bits: np.ndarray, quants: np.ndarray) -> None:
    quants[...] = bits


def _pack_q1(digits: np.ndarray, quants: np.ndarray) -> None:
    quants[...] = np.packbits(digits, axis=-1, bitorder="little")


def _unpack_q1(quants: np.ndarray, codes: np.ndarray) -> None:
    np.multiply(np.unpackbits(quants, axis=-1, bitorder="little").view(np.int8), 2, out=codes)
    np.subtract(codes, 1, out=codes)


def _pack_q2(digits: np.ndarray, quants: np.ndarray) -> None:
    fours = digits.view("<u4")  # four digits, one a byte
    quants[...] = (fours | fours >> 6 | fours >> 12 | fours >> 18).astype(np.uint8)


def _unpack_q2(quants: np.ndarray, codes: np.ndarray) -> None:
    bytes_ = quants.astype("<u4")
    spread = (bytes_ | bytes_ << 6 | bytes_ << 12 | bytes_ << 18) & 0x03030303
    np.subtract(spread.view(np.int8), 1, out=codes)


def _pack_tq2(digits: np.ndarray, quants: np.ndarray) -> None:
    quarters = digits.reshape(*digits.shape[:2], 2, 4, 32)
    packed = quarters[..., 0, :] | quarters[..., 1, :] << 2 | quarters[..., 2, :] << 4 | quarters[..., 3, :] << 6
    quants[...] = packed.reshape(quants.shape)


def _unpack_tq2(quants: np.ndarray, codes: np.ndarray) -> None:
    halves = quants.reshape(*quants.shape[:2], 2, 32)
    quarters = codes.reshape(*codes.shape[:2], 2, 4, 32)
    for n in range(4):
        np.subtract((halves >> (2 * n) & 3).view(np.int8), 1, out=quarters[..., n, :])


def _pack_q4(digits: np.ndarray, quants: np.ndarray) -> None:
    quants[...] = digits[..., :16] | digits[..., 16:] << 4


def _unpack_q4(quants: np.ndarray, codes: np.ndarray) -> None:
    np.subtract((quants & 15).view(np.int8), 8, out=codes[..., :16])
    np.subtract((quants >> 4).view(np.int8), 8, out=codes[..., 16:])


def _pack_q5(digits: np.ndarray, quants: np.ndarray) -> None:
    quants[..., :4] = np.packbits(digits >> 4, axis=-1, bitorder="little")
    _pack_q4(digits & 15, quants[..., 4:])


def _unpack_q5(quants: np.ndarray, codes: np.ndarray) -> None:
    _unpack_q4(quants[..., 4:], codes)
    codes += (np.unpackbits(quants[..., :4], axis=-1, bitorder="little").view(np.int8) << 4) - np.int8(8)


_TQ1_PARTS = (
    (slice(0, 32), slice(0, 160), 5),
    (slice(32, 48), slice(160, 240), 5),
    (slice(48, 52), slice(240, 256), 4),
)
"""Bytes of a TQ1_0 block, the weights they hold, and how many weights a byte."""
_TO_BYTE = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)


def _pack_tq1(digits: np.ndarray, quants: np.ndarray) -> None:
    for bytes_, weights, num_digits in _TQ1_PARTS:
        columns = digits[..., weights].reshape(*digits.shape[:2], num_digits, -1)
        number = columns[..., 0, :].copy()
        for n in range(1, num_digits):
            number *= 3
            number += columns[..., n, :]
        if num_digits == 4:
            number *= 3
        quants[..., bytes_] = _TO_BYTE[number]


def _unpack_tq1(quants: np.ndarray, codes: np.ndarray) -> None:
    for bytes_, weights, num_digits in _TQ1_PARTS:
        number = quants[..., bytes_].copy()
        columns = codes[..., weights].reshape(*codes.shape[:2], num_digits, -1)
        for n in range(num_digits):
            columns[..., n, :] = (number.astype(np.uint16) * 3 >> 8).astype(np.int8) - 1
            number *= 3  # modulo 256
        codes[..., weights] = columns.reshape(*codes.shape[:2], -1)


_PACK = {
    **{"q1_0": _pack_q1, "q2_0": _pack_q2, "tq1_0": _pack_tq1, "tq2_0": _pack_tq2},
    **{"q4_0": _pack_q4, "q5_0": _pack_q5},
}
_UNPACK = {
    **{"q1_0": _unpack_q1, "q2_0": _unpack_q2, "tq1_0": _unpack_tq1, "tq2_0": _unpack_tq2},
    **{"q4_0": _unpack_q4, "q5_0": _unpack_q5},
}


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
