"""GGUF files made by hand, each with one fault that a random change hardly ever makes; and short ones to cut."""

from __future__ import annotations

import struct
from collections.abc import Mapping

MOST = 2**64 - 1


def text(value: bytes) -> bytes:
    """Length and bytes."""
    return struct.pack("<Q", len(value)) + value


def header(num_tensors: int = 0, num_keys: int = 0, version: int = 3) -> bytes:
    """Return the first 24 bytes."""
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def key(name: bytes, kind: int, value: bytes) -> bytes:
    """Return a key with its value."""
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    """Return the value of an array."""
    return struct.pack("<IQ", kind, count) + items


def tensor(name: bytes, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """Return an entry of the table of tensors; sizes are innermost first."""
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def with_data(head: bytes) -> bytes:
    """Return a header with 2 KiB of data behind it, at its place."""
    return head + bytes(-len(head) % 32) + bytes(2048)


def aligned(number: int, offset: int = 0) -> bytes:
    """Return a file of that alignment, with one tensor."""
    return with_data(
        header(1, 1) + key(b"general.alignment", 4, struct.pack("<I", number)) + tensor(b"t", (8,), 0, offset)
    )


ARCHITECTURE = key(b"general.architecture", 8, text(b"llama"))
SHORT = header(2, 3) + ARCHITECTURE + key(b"u", 0, b"\x01") + key(b"a", 9, array(6, 2, bytes(8)))
SHORT += tensor(b"first.weight", (4, 8)) + tensor(b"b", (128, 2), 41, 128)
"""A header of about 200 bytes, to be cut at each of them."""

_ONE, _KEY = header(1), header(0, 1)
REFUSED: Mapping[str, bytes] = {
    "nothing": b"",
    "four letters": b"GGUF",
    "another magic": b"GGML" + header()[4:],
    "magic backwards": b"FUGG" + header()[4:],
    "version 0": header(version=0),
    "version 1": header(version=1),
    "version 4": header(version=4),
    "big-endian version": header(version=0x03000000),
    "2^63 tensors": header(2**63),
    "2^64-1 tensors": header(MOST),
    "2^63 keys": header(0, 2**63),
    "2^64-1 keys": header(0, MOST),
    "more tensors than any model": header(2**17) + bytes(2**22),
    "a name of 2^63": _KEY + struct.pack("<Q", 2**63) + bytes(64),
    "a name of 2^64-1": _KEY + struct.pack("<Q", MOST) + bytes(64),
    "a name longer than 256": _KEY + text(b"n" * 257) + bytes(64),
    "a name that is no UTF-8": _KEY + key(b"\xff\xfe", 0, b"\0"),
    "a text of 2^63": _KEY + key(b"k", 8, struct.pack("<Q", 2**63) + bytes(64)),
    "an array of 2^63 bytes": _KEY + key(b"k", 9, array(0, 2**63, bytes(64))),
    "an array of 2^62 doubles": _KEY + key(b"k", 9, array(12, 2**62, bytes(64))),
    "an array of 2^61 doubles, which are 2^64 bytes": _KEY + key(b"k", 9, array(12, 2**61, bytes(64))),
    "an array of 2^63 texts": _KEY + key(b"k", 9, array(8, 2**63, bytes(64))),
    "arrays within arrays without end": _KEY + key(b"k", 9, array(9, 1) * 64 + array(0, 1, b"\0")),
    "type 13": _KEY + key(b"k", 13, bytes(64)),
    "type 2^32-1": _KEY + key(b"k", 2**32 - 1, bytes(64)),
    "an array of type 13": _KEY + key(b"k", 9, array(13, 1, bytes(64))),
    "a key twice": header(0, 2) + 2 * key(b"k", 0, b"\0"),
    "the alignment twice": header(0, 2) + 2 * key(b"general.alignment", 4, struct.pack("<I", 32)),
    "alignment 0": aligned(0),
    "alignment 3": aligned(3),
    "alignment 2^31": aligned(2**31),
    "alignment 2^32-1": aligned(2**32 - 1),
    "alignment as text": with_data(header(1, 1) + key(b"general.alignment", 8, text(b"32")) + tensor(b"t", (8,))),
    "an offset that the alignment forbids": aligned(64, 32),
    "no dimension": with_data(_ONE + tensor(b"t", ())),
    "5 dimensions": with_data(_ONE + tensor(b"t", (1,) * 5)),
    "2^32-1 dimensions": _ONE + text(b"t") + struct.pack("<I", 2**32 - 1) + bytes(64),
    "a size of 0": with_data(_ONE + tensor(b"t", (4, 0))),
    "a size of 2^63": with_data(_ONE + tensor(b"t", (2**63,))),
    "a product of 2^64": with_data(_ONE + tensor(b"t", (2**32, 2**32))),
    "a product of 2^64 + 32": with_data(_ONE + tensor(b"t", (32, 2**59 + 1))),
    "a product of four, 2^128": with_data(_ONE + tensor(b"t", (2**32,) * 4)),
    "part of a block": with_data(_ONE + tensor(b"t", (130, 2), 41)),
    "tensor type 4, which is gone": with_data(_ONE + tensor(b"t", (32,), 4)),
    "tensor type 2^32-1": with_data(_ONE + tensor(b"t", (32,), 2**32 - 1)),
    "an offset of 2^63": with_data(_ONE + tensor(b"t", (32,), 0, 2**63)),
    "an offset of 2^64-32": with_data(_ONE + tensor(b"t", (32,), 0, 2**64 - 32)),
    "an offset beyond the end": with_data(_ONE + tensor(b"t", (32,), 0, 4096)),
    "a tensor longer than the file": with_data(_ONE + tensor(b"t", (1024,))),
    "two tensors that overlap": with_data(header(2) + tensor(b"t", (32,)) + tensor(b"u", (32,), 0, 96)),
    "one tensor inside another": with_data(header(2) + tensor(b"t", (256,)) + tensor(b"u", (8,), 0, 512)),
    "two tensors at one place": with_data(header(2) + tensor(b"t", (8,)) + tensor(b"u", (8,))),
    "one name for two tensors": with_data(header(2) + tensor(b"t", (8,)) + tensor(b"t", (8,), 0, 32)),
    "a name of a tensor that is no UTF-8": with_data(_ONE + tensor(b"\xc3", (8,))),
}
