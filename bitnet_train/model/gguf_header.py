"""Walk over a GGUF header before a reader that trusts it does.

    magic "GGUF"  version u32 (2 or 3)  tensors u64  keys u64
    per key       name (u64 length, bytes)  type u32  value: scalar | string | array (type u32, count u64, items)
    per tensor    name (u64 length, bytes)  dimensions u32  sizes u64 each  type u32  offset u64

all little-endian. The `gguf` package loops over an array length as the file states it, so a damaged or hostile file of
51 bytes can hang it for ever. Here every length is checked against the bytes that are left. Tensor data is not looked
at. Source: the GGUF specification in the ggml repository, docs/gguf.md.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from bitnet_train.errors import FormatError

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 4


def check_gguf_header(path: Path) -> None:
    """Raise FormatError unless the header of the file is whole and its lengths fit the file."""
    with path.open("rb") as file:
        _Walk(file, path).check()


class _Walk:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.left = path.stat().st_size

    def check(self) -> None:
        if self.take(4) != b"GGUF":
            raise FormatError(f"{self.path} is not a GGUF file: it does not start with the letters GGUF.")
        version = self.number("<I")
        if version not in (2, 3):
            raise FormatError(f"{self.path} is GGUF version {version}; versions 2 and 3 (little-endian) are read.")
        num_tensors, num_keys = self.number("<Q"), self.number("<Q")
        for _ in range(self.plausible(num_keys, 13)):
            self.skip(self.number("<Q"))
            self.value(self.number("<I"), 0)
        for _ in range(self.plausible(num_tensors, 24)):
            self.skip(self.number("<Q"))
            self.skip(8 * self.plausible(self.number("<I"), 8, _MAX_DIMENSIONS) + 12)

    def value(self, kind: int, depth: int) -> None:
        if kind in _SCALAR_BYTES:
            self.skip(_SCALAR_BYTES[kind])
        elif kind == _STRING:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY and depth < _MAX_DEPTH:
            self.array(self.number("<I"), self.number("<Q"), depth)
        else:
            raise FormatError(f"{self.path} is damaged: its metadata has a value of unknown type {kind}.")

    def array(self, kind: int, count: int, depth: int) -> None:
        if kind in _SCALAR_BYTES:
            self.skip(count * _SCALAR_BYTES[kind])
            return
        for _ in range(self.plausible(count, 8)):
            self.value(kind, depth + 1)

    def plausible(self, count: int, item_bytes: int, limit: int | None = None) -> int:
        if count * item_bytes > self.left or (limit is not None and count > limit):
            raise self.truncated()
        return count

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.left:
            raise self.truncated()
        self.left -= num_bytes
        return self.file.read(num_bytes)

    def skip(self, num_bytes: int) -> None:
        if num_bytes > self.left:
            raise self.truncated()
        self.left -= num_bytes
        self.file.seek(num_bytes, 1)

    def truncated(self) -> FormatError:
        return FormatError(
            f"{self.path} is truncated or damaged: its header describes more data than the file has. Download it again."
        )
