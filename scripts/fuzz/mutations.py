"""Ways to damage a file: at random, and with intent. Each takes dice and the bytes of a sound file, and returns others.

With intent: lengths of 2^63, offsets that overlap, shapes whose product overflows, sizes of 2^60, names that leave the
folder, types that do not exist, a manifest that contradicts the weights under a hash that fits.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from bitnet_train.packed.manifest import seal

Mutation = Callable[[random.Random, bytes], bytes]
Files = Mapping[str, Sequence[Mutation]]

NASTY: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 7, 63, 64, 65, 1 << 16, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 60, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**400, -(1 << 63), 0.5, -0.0, 1e308, 1e-320, True, False),
    *(None, "", "x", "\x00", "0", "../../etc/passwd", "a" * 5000, [], [1], {}, {"a": 1}, [[[]]], "model.norm"),
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "")
NUMBERS = (0, 1, 2, 31, 33, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LARGE = (*NUMBERS, 1 << 32, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
OUTSIDE = "../outside.safetensors"
"""A name that leads out of a folder; `hf_bitnet` puts a sound file there and watches it."""
NAMES = (OUTSIDE, "/etc/passwd", "..", "", "a/../../outside.safetensors", "other.safetensors", "x" * 5000)


def flip_bytes(dice: random.Random, data: bytes) -> bytes:
    """Change up to eight bytes, most of them near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        end = len(changed) if dice.random() < 0.3 else min(len(changed), 4096)
        changed[dice.randrange(end)] = dice.choice((0, 255, 34, 44, 48, 57, 93, 125, dice.randrange(256)))
    return bytes(changed)


def cut_or_grow(dice: random.Random, data: bytes) -> bytes:
    """Shorten the file anywhere, or write something behind it."""
    if dice.random() < 0.7:
        return data[: dice.choice((0, 1, 7, 8, 9, dice.randrange(len(data)), len(data) - 1))]
    return data + bytes(dice.choice((1, 8, 4096)))


def lie_about_length(dice: random.Random, data: bytes) -> bytes:
    """Change the length of the header of a safetensors file alone."""
    lengths = (0, 1, 1 << 63, (1 << 63) - 1, (1 << 64) - 1, 1 << 32, len(data), len(data) - 8, len(data) - 7)
    return struct.pack("<Q", dice.choice(lengths)) + data[8:]


def edit_header(dice: random.Random, data: bytes) -> bytes:
    """Change what the header of a safetensors file says of a tensor, and leave the data."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    names = [name for name in header if name != "__metadata__"]
    name, other = dice.choice(names), dice.choice(names)
    _edit_entry(dice, header, name, other)
    text = json.dumps(header).encode()
    if name in header and dice.random() < 0.1:  # the same name twice
        text = text[:-1] + b"," + json.dumps(name).encode() + b":" + json.dumps(header[name]).encode() + b"}"
    return struct.pack("<Q", len(text)) + text + data[end:]


def _edit_entry(dice: random.Random, header: dict[str, Any], name: str, other: str) -> None:
    entry = header[name]
    edit = dice.randrange(9)
    if edit == 0:
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif edit == 1:
        entry["data_offsets"][dice.randrange(2)] = dice.choice(NASTY)
    elif edit == 2:
        entry["data_offsets"] = [at + dice.choice((-1, 1, 64)) for at in entry["data_offsets"]]
    elif edit == 3 and entry["shape"]:
        entry["shape"][dice.randrange(len(entry["shape"]))] = dice.choice(NASTY)
    elif edit == 4:
        entry["shape"] = dice.choice((entry["shape"][::-1], [*entry["shape"], 1], [1 << 32, 1 << 32], [0], []))
    elif edit == 5:
        entry["dtype"] = dice.choice(DTYPES)
    elif edit == 6:
        header[name], header[other] = header[other], header[name]
    elif edit == 7:
        header[dice.choice(("a", "", "model.norm.weight.weight", "x" * 9999))] = header.pop(name)
    else:
        header[name] = dice.choice(NASTY)


def edit_json(dice: random.Random, data: bytes) -> bytes:
    """Change, drop or copy one to three values anywhere in a JSON document, and seal it anew where it was sealed.

    One that has come to hold itself is cut instead.
    """
    body = json.loads(data)
    sealed = isinstance(body, dict) and body.pop("manifest_sha256", None) is not None
    for _ in range(dice.randint(1, 3)):
        edit_value(dice, body)
    try:
        if sealed and dice.random() < 0.95:
            with suppress(ValueError, RecursionError):
                return seal(body).encode()
        return json.dumps(body).encode()
    except ValueError:
        return data[:-1]


def edit_value(dice: random.Random, node: Any) -> None:
    """Change, drop or copy one value anywhere below `node`, in place."""
    while isinstance(node, dict | list) and node:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        child = node[key]
        if isinstance(child, dict | list) and child and dice.random() < 0.85:
            node = child
            continue
        if dice.random() < 0.15:
            del node[key]
        elif dice.random() < 0.15 and type(child) is int:
            node[key] = child * dice.choice((2, 64, -1)) + dice.choice((-1, 0, 1))
        else:
            node[key] = dice.choice((*NASTY, dice.choice(list(node.values()) if isinstance(node, dict) else node)))
        return


def edit_index(dice: random.Random, data: bytes) -> bytes:
    """Let an index of weights name other files."""
    content = json.loads(data)
    names = list(content["weight_map"])
    for name in dice.sample(names, dice.randint(1, len(names))):
        content["weight_map"][name] = dice.choice(NAMES)
    return json.dumps(content).encode()


def edit_gguf(dice: random.Random, data: bytes) -> bytes:
    """Change numbers behind a name in the header: of a key its type and value, of a tensor its shape, type, offset."""
    changed = bytearray(data)
    names = gguf_names(data)
    for _ in range(dice.randint(1, 3)):
        start, end = dice.choice(names)
        at = dice.choice((start - 8, end, end, end + 4, end + 8, end + 12, end + 20, end + 24))
        form, numbers = dice.choice((("<I", NUMBERS), ("<Q", LARGE)))
        if dice.random() < 0.3:
            _write(changed, start, data[slice(*dice.choice(names))][: end - start])
        else:
            _write(changed, at, struct.pack(form, dice.choice((*numbers, dice.randrange(64)))))
    return bytes(changed)


def edit_counts(dice: random.Random, data: bytes) -> bytes:
    """Change the version of a GGUF file, or how many tensors and keys there are said to be."""
    changed = bytearray(data)
    at, form, numbers = dice.choice(((4, "<I", NUMBERS), (8, "<Q", LARGE), (16, "<Q", LARGE)))
    _write(changed, at, struct.pack(form, dice.choice((*numbers, dice.randrange(64)))))
    return bytes(changed)


def _write(data: bytearray, at: int, content: bytes) -> None:
    if at >= 0 and at + len(content) <= len(data):
        data[at : at + len(content)] = content


@lru_cache(maxsize=4)
def gguf_names(data: bytes) -> tuple[tuple[int, int], ...]:
    """Where the names of keys and tensors lie: text of a plausible length, with a dot in it."""
    found = []
    for start in range(24, min(len(data), 1 << 16) - 8):
        length = int.from_bytes(data[start : start + 8], "little")
        name = data[start + 8 : start + 8 + length]
        if 4 < length < 64 and b"." in name and all(48 <= letter < 123 or letter == 46 for letter in name):
            found.append((start + 8, start + 8 + length))
    return tuple(found)


SAFETENSORS: tuple[Mutation, ...] = (flip_bytes, cut_or_grow, lie_about_length, edit_header, edit_header, edit_header)
JSON: tuple[Mutation, ...] = (flip_bytes, cut_or_grow, edit_json, edit_json, edit_json, edit_json)
GGUF: tuple[Mutation, ...] = (flip_bytes, cut_or_grow, edit_counts, edit_gguf, edit_gguf, edit_gguf)


def damage(dice: random.Random, folder: Path, files: Files) -> tuple[Path, bytes, Mutation]:
    """Return a file of `folder`, a damaged content for it, and what was done."""
    name = dice.choice(list(files))
    mutation = dice.choice(files[name])
    return folder / name, mutation(dice, (folder / name).read_bytes()), mutation


@contextmanager
def holding(path: Path, content: bytes, what: str = "") -> Iterator[None]:
    """Give a file another content for the time of the block; an error gets a note of it."""
    whole = path.read_bytes()
    path.unlink()  # a file that a reader may still have mapped is not changed under it
    path.write_bytes(content)
    try:
        yield
    except BaseException as error:
        error.add_note(f"{path.name}: {what}")
        raise
    finally:
        path.unlink()
        path.write_bytes(whole)
