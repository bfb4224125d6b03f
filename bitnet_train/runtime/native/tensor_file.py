"""Read a safetensors file by memory map, with every claim of its header checked before one byte of data is touched.

    byte 0..7            byte 8 .. 8+n             byte 8+n ..
    n, uint64 little     n bytes of JSON           data; a tensor lies at data_offsets [begin, end) of it

The `safetensors` library hands out torch tensors, or numpy arrays without bfloat16; here an array is a view of the
mapped file in its stored bytes. Checked: lengths against the size of the file, JSON without repeated names, dtypes,
shapes against byte counts, and that the tensors lie end to end, so that none overlaps another and no byte is unnamed.

Pages of the file that were read count as memory of the process until `forget` gives them back; the system reads them
again when they are touched again. A file that another process shortens while it is mapped ends the process (SIGBUS),
as with every reader that maps: export into a new folder instead.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bitnet_train.errors import FormatError
from bitnet_train.packed.json_fields import Fields, parse_object, read_text

_LARGEST_HEADER_BYTES = 64 << 20
_LENGTH_BYTES = 8
_COPY_AGAIN = "Copy the folder again, or export the model again."

ITEM_BYTES = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
)
"""Bytes of an element of each dtype that our folders hold, by its name in the header."""

TORCH_NAMES = MappingProxyType(
    {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I16": "int16",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
    }
)
"""The manifest's name of each of those dtypes."""


@dataclass(frozen=True)
class Stored:
    """One tensor of the header: dtype as the manifest names it, shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """An open, mapped file. Use it as a context; arrays that are still held keep the mapping alive after it.

    Raises
    ------
    FormatError
        On opening, when the file cannot be read or its header is not exact in every respect.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = _mapped(path)
        self.metadata, self.tensors = _header(self._map, path)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        del self._map  # closed with the last array

    def bytes_of(self, name: str) -> np.ndarray:
        """Return the bytes of one tensor, flat uint8, a read-only view of the file."""
        stored = self.tensors[name]
        return np.frombuffer(self._map, np.uint8, stored.end - stored.begin, stored.begin)

    def array(self, name: str) -> np.ndarray:
        """Return one uint8 or int8 tensor in its shape, a read-only view of the file."""
        stored = self.tensors[name]
        assert stored.dtype in ("uint8", "int8")
        return self.bytes_of(name).view(stored.dtype).reshape(stored.shape)

    def rows_of_bytes(self, name: str) -> np.ndarray:
        """Return a tensor [N, K] of any dtype as its bytes uint8 [N, K * item], a read-only view of the file."""
        return self.bytes_of(name).reshape(self.tensors[name].shape[0], -1)

    def float32(self, name: str) -> np.ndarray:
        """Return a float tensor widened to float32, exactly, in memory of its own; FormatError for other dtypes."""
        stored = self.tensors[name]
        data = self.bytes_of(name)
        if stored.dtype == "bfloat16":
            wide = data.view("<u2").astype("<u4")
            wide <<= 16
            values = wide.view("<f4")
        elif stored.dtype in ("float16", "float32"):
            values = data.view("<f2" if stored.dtype == "float16" else "<f4").astype(np.float32)
        else:
            raise FormatError(f"{self._path}: {name} is {stored.dtype} where a float tensor belongs. {_COPY_AGAIN}")
        return values.reshape(stored.shape)

    def forget(self) -> None:
        """Give back the memory pages of the file; views of it stay valid."""
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows gives pages back by itself
            self._map.madvise(mmap.MADV_DONTNEED)


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise FormatError(f"{path} cannot be read: {error}. {_COPY_AGAIN}") from error


def _header(data: mmap.mmap, path: Path) -> tuple[dict[str, str], dict[str, Stored]]:
    """Return metadata and tensors; FormatError names what is wrong."""
    num_bytes = int.from_bytes(data[:_LENGTH_BYTES], "little")
    room = len(data) - _LENGTH_BYTES
    if room < 0 or num_bytes > min(room, _LARGEST_HEADER_BYTES):
        raise FormatError(
            f"{path} is cut short or no safetensors file: its header would be {num_bytes} bytes, and {max(room, 0)} "
            f"are there (at most {_LARGEST_HEADER_BYTES} are allowed). {_COPY_AGAIN}"
        )
    start = _LENGTH_BYTES + num_bytes
    try:
        text = data[_LENGTH_BYTES:start].decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: the header is not UTF-8 ({error}). {_COPY_AGAIN}") from error
    body = parse_object(text, f"{path}: the header")
    metadata = _metadata(body.pop("__metadata__", {}), path)
    tensors = {name: _stored(value, f"{path}: {name[:200]!r}", start) for name, value in body.items()}
    _check_tiling(tensors, start, len(data), path)
    return metadata, tensors


def _metadata(value: Any, path: Path) -> dict[str, str]:
    where = f"{path}: `__metadata__`"
    if not isinstance(value, dict):
        raise FormatError(f"{where} must be an object. {_COPY_AGAIN}")
    return {key: read_text(item, where) for key, item in value.items()}


def _stored(value: Any, where: str, start: int) -> Stored:
    fields = Fields(value, where)
    dtype = fields.take("dtype", str)
    shape = fields.take_list("shape", _count)
    offsets = fields.take_list("data_offsets", _count)
    fields.done()
    if dtype not in ITEM_BYTES:
        raise FormatError(f"{where} has dtype {dtype[:40]!r}. Allowed: {', '.join(ITEM_BYTES)}.")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise FormatError(
            f"{where} claims {math.prod(shape) * ITEM_BYTES[dtype]} bytes by its shape, and data_offsets "
            f"{list(offsets)}. {_COPY_AGAIN}"
        )
    return Stored(TORCH_NAMES[dtype], shape, start + offsets[0], start + offsets[1])


def _count(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise FormatError(f"{where} must be a whole number below 2^63, not {str(value)[:40]}.")
    return value


def _check_tiling(tensors: dict[str, Stored], start: int, end: int, path: Path) -> None:
    """Check that the tensors, in the order of their bytes, cover [start, end) without gap or overlap."""
    at = start
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if stored.begin != at:
            fault = "overlaps the tensor before it" if stored.begin < at else "leaves unnamed bytes before it"
            raise FormatError(f"{path}: {name[:200]!r} {fault}. {_COPY_AGAIN}")
        at = stored.end
    if at != end:
        fault = "cut short" if at > end else "longer than its tensors"
        raise FormatError(f"{path} is {fault}: {end} bytes, and the tensors end at {at}. {_COPY_AGAIN}")
