"""Read a GGUF file without trusting it: metadata, tensor table, and the bytes of one tensor at a time.

    magic "GGUF"  version u32 (2 or 3)  tensors u64  keys u64
    per key       name (u64 length, bytes)  type u32  value: scalar | string | array (type u32, count u64, items)
    per tensor    name (u64 length, bytes)  dimensions u32  sizes u64 each, innermost first  type u32  offset u64
    zeros up to a multiple of `general.alignment` (32), then the data; offsets count from there

all little-endian. The `gguf` package believes what a header says: an array length of 2^63 in a file of 51 bytes keeps
it busy for ever, and it knows fewer types than llama.cpp writes. Here every number is compared with the bytes there are
before it is used, so whatever is wrong with a file is a `FormatError` at once, and no two tensors share a byte. Source:
the GGUF specification in the ggml repository, docs/gguf.md; the sizes of blocks are those of ggml-common.h.

Values that no reader of weights asks for (vocabularies, texts above 64 KiB) are checked and left in the file.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_train.errors import FormatError
from bitnet_train.gguf.magic import MAGIC

BLOCKS: dict[int, tuple[str, int, int]] = {
    **{0: ("F32", 1, 4), 1: ("F16", 1, 2), 28: ("F64", 1, 8), 30: ("BF16", 1, 2)},
    **{24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8)},
    **{2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24)},
    **{8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36)},
    **{10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176)},
    **{14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 20: ("IQ4_NL", 32, 18), 23: ("IQ4_XS", 256, 136)},
    **{16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 22: ("IQ2_S", 256, 82)},
    **{18: ("IQ3_XXS", 256, 98), 21: ("IQ3_S", 256, 110), 19: ("IQ1_S", 256, 50), 29: ("IQ1_M", 256, 56)},
    **{34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18)},
}
"""Of each ggml type: its name, the weights of a block, and the bytes of a block."""

_EARLIER_BLOCKS = {41: (32, 6), 42: (128, 34)}  # as files of early 2026 have them, from before llama.cpp had the type
Entry = tuple[str, tuple[int, ...], int, int]  # of the table of tensors: name, shape, type, offset

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_DEPTH = 4
_MAX_COUNT = 1 << 16  # of keys and of tensors: the largest models have thousands
_MAX_ITEMS = 1 << 22  # of strings and nested arrays in the metadata: vocabularies have half a million
_MAX_NAME_BYTES = 256
_MAX_KEPT_BYTES = 1 << 16
_ALIGNMENT_KEY = "general.alignment"
_TOKENS_KEY = b"tokenizer.ggml.tokens"
_NO_TOKENS = struct.pack(f"<Q{len(_TOKENS_KEY)}sIIQQ", len(_TOKENS_KEY), _TOKENS_KEY, _ARRAY, _STRING, 1, 0)


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies. `shape` is in our order, outermost first: [N, K] of a weight."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    start: int
    num_bytes: int

    @property
    def type_name(self) -> str:
        """The name of the type in ggml, such as `Q1_0`."""
        return BLOCKS[self.type_id][0]


class GgufFile:
    """A checked GGUF file. `metadata` holds scalars and short texts, and of an array its length as `ArrayOf`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _map(path)
        walk = _Walk(self._bytes, path)
        self.version, num_tensors, num_keys = walk.start()
        self._places: dict[str, tuple[int, int]] = {}
        self.metadata = walk.metadata(num_keys, self._places)
        self.tensors = walk.tensors(num_tensors, self.metadata)

    def rows(self, name: str) -> np.ndarray:
        """The bytes of a tensor, uint8 [rows, bytes of a row]: a read-only view of the file."""
        tensor = self.tensors[name]
        data = np.frombuffer(self._bytes, np.uint8, tensor.num_bytes, tensor.start)
        return data.reshape(prod(tensor.shape[:-1]), -1)

    def numbers(self, key: str) -> list[Any]:
        """The items of an array of numbers in the metadata. Raises FormatError when it holds anything else."""
        value = self.metadata.get(key)
        assert isinstance(value, ArrayOf), "only arrays are left in the file"
        start = self._places[key][0] + 8 + len(key.encode()) + 4
        (kind,) = struct.unpack_from("<I", self._bytes, start)
        if kind not in _SCALARS:
            raise FormatError(f"{self.path} is damaged: `{key}` is no list of numbers. Download it again.")
        return list(struct.unpack_from(f"<{value.count}{_SCALARS[kind]}", self._bytes, start + 12))

    def without_tensors(self, *, vocabulary: bool = True) -> bytes:
        """A file with this metadata and no tensor; without the vocabulary, the tokenizer is a single empty token."""
        places = self._places.items()
        kept = [self._bytes[start:end] for name, (start, end) in places if vocabulary or not _is_vocabulary(name)]
        kept += [] if vocabulary else [_NO_TOKENS]
        return struct.pack("<4sIQQ", MAGIC, self.version, 0, len(kept)) + b"".join(kept)


@dataclass(frozen=True)
class ArrayOf:
    """An array in the metadata, not its items."""

    count: int


def open_gguf(path: str | Path) -> GgufFile:
    """Open a GGUF file, of version 2 or 3, and check all of its structure. Raises FormatError saying what is wrong."""
    return GgufFile(Path(path))


def _is_vocabulary(key: str) -> bool:
    return key.startswith("tokenizer.")


def _map(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return b""


class _Walk:
    """A position in the header that only moves over bytes that are there."""

    def __init__(self, data: mmap.mmap | bytes, path: Path) -> None:
        self.data, self.path = data, path
        self.at, self.size, self.items = 0, len(data), 0

    def start(self) -> tuple[int, int, int]:
        if self.data[:4] != MAGIC:
            raise FormatError(f"{self.path} is not a GGUF file: it does not start with the letters GGUF.")
        self.skip(4)
        version = self.number("I")
        if version not in (2, 3):
            raise FormatError(f"{self.path} is GGUF version {version}; versions 2 and 3 (little-endian) are read.")
        num_tensors, num_keys = self.number("Q"), self.number("Q")
        return version, self.plausible(num_tensors, 24, _MAX_COUNT), self.plausible(num_keys, 13, _MAX_COUNT)

    def metadata(self, num_keys: int, places: dict[str, tuple[int, int]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(num_keys):
            start, name = self.at, self.name()
            if name in found:
                raise self.damaged(f"its metadata has the key {name} twice")
            found[name] = self.value(self.number("I"), 0)
            places[name] = (start, self.at)
        return found

    def tensors(self, num_tensors: int, metadata: dict[str, Any]) -> dict[str, GgufTensor]:
        entries = [self.entry() for _ in range(num_tensors)]
        alignment = metadata.get(_ALIGNMENT_KEY, 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.damaged(f"`{_ALIGNMENT_KEY}` is {alignment!r}, which is no power of two")
        data_start = -(-self.at // alignment) * alignment
        self.require_todays_blocks(entries, data_start, alignment)
        found: dict[str, GgufTensor] = {}
        for name, shape, type_id, offset in entries:
            if name in found:
                raise self.damaged(f"it has two tensors called {name}")
            if offset % alignment:
                raise self.damaged(f"the data of {name} is not aligned to {alignment} bytes")
            found[name] = self.placed(name, shape, type_id, data_start + offset)
        self.require_apart(found)
        return found

    def require_todays_blocks(self, entries: list[Entry], data_start: int, alignment: int) -> None:
        """Refuse blocks of an earlier layout under today's number, told by the room that a tensor has."""
        starts = sorted(offset for _, _, _, offset in entries)
        ends = dict(pairwise([*starts, self.size - data_start]))
        for name, shape, type_id, offset in entries:
            if type_id not in _EARLIER_BLOCKS:
                continue
            type_name, *todays = BLOCKS[type_id]
            rooms = [prod(shape) // block * num_bytes for block, num_bytes in (todays, _EARLIER_BLOCKS[type_id])]
            todays_room, earlier_room = ((room, -(-room // alignment) * alignment) for room in rooms)
            if ends[offset] - offset in earlier_room and ends[offset] - offset not in todays_room:
                raise FormatError(
                    f"{self.path}: {name} is {type_name} in an earlier layout, blocks of {_EARLIER_BLOCKS[type_id][0]} "
                    f"weights; llama.cpp's {type_name} has blocks of {todays[0]} under the same number. Downloading it "
                    "again changes nothing: take a newer file of this model, or make one from its float weights with a "
                    "current llama.cpp."
                )

    def entry(self) -> Entry:
        name = self.name()
        num_dimensions = self.number("I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise self.damaged(f"{name} has {num_dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are possible")
        sizes = [self.number("Q") for _ in range(num_dimensions)]
        return name, tuple(reversed(sizes)), self.number("I"), self.number("Q")

    def placed(self, name: str, shape: tuple[int, ...], type_id: int, start: int) -> GgufTensor:
        if type_id not in BLOCKS:
            raise FormatError(
                f"{self.path}: {name} has the unknown type {type_id}. Known: "
                f"{', '.join(f'{number} {kind[0]}' for number, kind in sorted(BLOCKS.items()))}."
            )
        type_name, block, block_bytes = BLOCKS[type_id]
        if min(shape) < 1 or shape[-1] % block:
            raise self.damaged(
                f"{name} has the shape {list(shape)}, and {type_name} comes in rows of blocks of {block}"
            )
        num_bytes = prod(shape) // block * block_bytes
        if start + num_bytes > self.size:
            raise self.truncated()
        return GgufTensor(name, shape, type_id, start, num_bytes)

    def require_apart(self, tensors: dict[str, GgufTensor]) -> None:
        ordered = sorted(tensors.values(), key=lambda tensor: tensor.start)
        for before, after in pairwise(ordered):
            if before.start + before.num_bytes > after.start:
                raise self.damaged(f"{before.name} and {after.name} overlap")

    def value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth < _MAX_DEPTH:
            return self.array(self.number("I"), self.number("Q"), depth)
        raise self.damaged(f"its metadata has a value of unknown type {kind}")

    def array(self, kind: int, count: int, depth: int) -> ArrayOf:
        if kind in _SCALARS:
            self.skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
            return ArrayOf(count)
        self.items += self.plausible(count, 8, _MAX_ITEMS)
        self.plausible(self.items, 0, _MAX_ITEMS)
        for _ in range(count):
            if kind == _STRING:
                self.skip(self.number("Q"))
            else:
                self.value(kind, depth + 1)
        return ArrayOf(count)

    def name(self) -> str:
        length = self.plausible(self.number("Q"), 1, _MAX_NAME_BYTES)
        try:
            return self.data[self.skip(length) : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a name in its header is no UTF-8") from None

    def text(self) -> str | ArrayOf:
        length = self.number("Q")
        start = self.skip(length)
        if length > _MAX_KEPT_BYTES:
            return ArrayOf(length)
        return self.data[start : self.at].decode("utf-8", errors="replace")

    def number(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        return struct.unpack_from(f"<{form}", self.data, self.skip(size))[0]

    def skip(self, num_bytes: int) -> int:
        """Move on and return where that was."""
        start = self.at
        if num_bytes > self.size - start:
            raise self.truncated()
        self.at += num_bytes
        return start

    def plausible(self, count: int, item_bytes: int, limit: int) -> int:
        if count * item_bytes > self.size - self.at:
            raise self.truncated()
        if count > limit:
            raise self.damaged(f"its header counts {count} of what there are never more than {limit}")
        return count

    def truncated(self) -> FormatError:
        return FormatError(
            f"{self.path} is truncated or damaged: its header describes more data than the file has. Download it again."
        )

    def damaged(self, what: str) -> FormatError:
        return FormatError(f"{self.path} is damaged: {what}. Download it again.")
