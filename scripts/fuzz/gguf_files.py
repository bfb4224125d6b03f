"""GGUF as a container: damaged and hand-made headers in our reader, and what is written, read back by two readers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.container import FileTensor, write_file
from bitnet_train.gguf.file import BLOCKS, ArrayOf, open_gguf
from scripts import ROOT
from scripts.fuzz import hand_made, watch
from scripts.fuzz.drawn import drawn
from scripts.fuzz.mutations import GGUF
from scripts.fuzz.targets import Attempt, Outcome

TYPES = {"F32": 0, "F16": 1, "TQ1_0": 34, "TQ2_0": 35}
_FORMS = {"uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q"}
_FORMS |= {"int64": "q"}
_LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
_TEXT = st.text(_LETTERS, max_size=40)


def gguf_check(work: Path) -> Attempt:
    """Open a file: first those made by hand, then a short header cut at every byte, then damaged ones."""
    refused = list(hand_made.REFUSED.items())
    whole = hand_made.with_data(hand_made.SHORT)
    cut = [(f"cut at byte {length}", hand_made.SHORT[:length]) for length in range(len(hand_made.SHORT))]
    sound = [whole, _written_anew(work / "sound.gguf")]

    def attempt(dice: random.Random, number: int) -> Outcome:
        if number < len(refused) + len(cut):
            name, content = (refused + cut)[number]
            assert _open(work, content) == "refused", name
            return "refused"
        return _open(work, dice.choice(GGUF)(dice, dice.choice(sound)))

    return attempt


def _open(work: Path, content: bytes) -> Outcome:
    path = work / "model.gguf"
    path.unlink(missing_ok=True)  # the last one may be mapped still
    path.write_bytes(content)
    with watch.little_memory():
        try:
            file = open_gguf(path)
        except FormatError:
            return "refused"
        read = sum(int(file.rows(name).sum()) for name in file.tensors)
    assert read >= 0
    return "works"


@dataclass(frozen=True)
class _File:
    """What is written: metadata by key as (type, value), tensors by name as (shape, type)."""

    metadata: Mapping[str, tuple[str, Any]]
    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    seed: int


def gguf_round_trip(work: Path) -> Attempt:
    """Write a file of drawn keys and tensors and read it, here and by the `gguf` package in a process of its own."""
    other = _OtherReader()
    path = work / "drawn.gguf"

    def check(file: _File) -> Outcome:
        content = _contents(file)
        path.unlink(missing_ok=True)
        _write(path, file, content)
        _same_here(path, file, content)
        other.same_there(path, file, content)
        return "works"

    return drawn(_files(), check)


def _files() -> st.SearchStrategy[_File]:
    numbers = [
        st.tuples(st.just(name), st.integers(*_bounds(form)) | st.sampled_from(_bounds(form)))
        for name, form in _FORMS.items()
    ]
    floats = st.tuples(st.just("float32"), st.floats(width=32, allow_nan=False))
    floats |= st.tuples(st.just("float64"), st.floats(allow_nan=False))
    # the package leaves out a key whose text is empty
    others = st.tuples(st.just("bool"), st.booleans()) | st.tuples(st.just("string"), _TEXT.filter(bool))
    lists = st.tuples(st.just("array"), st.lists(_TEXT, min_size=1, max_size=4))
    lists |= st.tuples(st.just("array"), st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9))
    names = st.text(_LETTERS, min_size=1, max_size=30).filter(_is_free)
    rows = st.lists(st.integers(1, 4), max_size=3).map(tuple)
    plain = st.tuples(st.tuples(rows, st.integers(1, 9)).map(_shape), st.sampled_from(["F32", "F16"]))
    ternary = st.tuples(st.tuples(rows, st.sampled_from([256, 512])).map(_shape), st.sampled_from(["TQ1_0", "TQ2_0"]))
    metadata = st.dictionaries(names, st.one_of(*numbers, floats, others, lists), max_size=5)
    tensors = st.dictionaries(names, plain | ternary, max_size=4)
    return st.builds(_File, metadata, tensors, st.integers(0, 2**32 - 1))


def _shape(sizes: tuple[tuple[int, ...], int]) -> tuple[int, ...]:
    return (*sizes[0], sizes[1])


def _is_free(name: str) -> bool:
    return not name.startswith(("general.", "GGUF.")) and len(name.encode()) <= 63  # ggml's longest name of a tensor


def _bounds(form: str) -> tuple[int, int]:
    bits = 8 * np.dtype(form).itemsize
    return (0, 2**bits - 1) if form.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _num_bytes(shape: tuple[int, ...], kind: str) -> int:
    _, block, block_bytes = BLOCKS[TYPES[kind]]
    return prod(shape) // block * block_bytes


def _contents(file: _File) -> dict[str, np.ndarray]:
    random_bytes = np.random.default_rng(file.seed)
    sizes = {name: _num_bytes(*tensor) for name, tensor in file.tensors.items()}
    return {name: random_bytes.integers(0, 256, size, np.uint8) for name, size in sizes.items()}


def _write(path: Path, file: _File, content: dict[str, np.ndarray]) -> None:
    def add_metadata(writer: Any) -> None:
        for name, (kind, value) in file.metadata.items():
            getattr(writer, f"add_{kind}")(name, value)

    tensors = [
        FileTensor(name, shape, TYPES[kind], len(content[name]), lambda name=name: content[name], name)
        for name, (shape, kind) in file.tensors.items()
    ]
    write_file(path, "llama", add_metadata, tensors)


def _same_here(path: Path, file: _File, content: dict[str, np.ndarray]) -> None:
    read = open_gguf(path)
    for name, (kind, value) in file.metadata.items():
        found = read.metadata[name]
        if kind == "array":
            assert found == ArrayOf(len(value)), f"{name!r}: {found}"
        else:
            wanted = float(np.float32(value)) if kind == "float32" else value
            assert found == wanted, f"{name!r}: {found!r} for {wanted!r}"
    assert list(read.tensors) == list(file.tensors)
    for name, (shape, kind) in file.tensors.items():
        tensor = read.tensors[name]
        assert (tensor.shape, tensor.type_name) == (shape, kind), name
        assert np.array_equal(read.rows(name).reshape(-1), content[name]), name


class _OtherReader:
    """The reader of the `gguf` package, in a process that may use little memory and is asked a file at a time."""

    _CODE = """
import json, resource, sys
import numpy as np
from gguf import GGUFReader
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
if mapped:
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (256 << 20),) * 2)
for line in sys.stdin:
    reader = GGUFReader(json.loads(line))
    keys = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: [tensor.shape.tolist()[::-1], tensor.tensor_type.name, tensor.data.view(np.uint8).tobytes().hex()]
        for tensor in reader.tensors
    }
    print(json.dumps([keys, tensors]), flush=True)
"""

    def __init__(self) -> None:
        command = [sys.executable, "-c", self._CODE]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def same_there(self, path: Path, file: _File, content: dict[str, np.ndarray]) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(str(path)) + "\n")
        self._process.stdin.flush()
        keys, tensors = json.loads(self._process.stdout.readline())
        for name, (kind, value) in file.metadata.items():
            wanted = float(np.float32(value)) if kind == "float32" else value
            assert keys[name] == wanted, f"the gguf package reads {name!r} as {keys[name]!r}, not {wanted!r}"
        for name, (shape, kind) in file.tensors.items():
            assert tensors[name] == [list(shape), kind, content[name].tobytes().hex()], name

    def __del__(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.wait()


def _written_anew(path: Path) -> bytes:
    metadata = {"llama.block_count": ("uint32", 1), "a.list": ("array", [1, 2]), "words.all": ("array", ["a", "bc"])}
    tensors = {"blk.0.weight": ((4, 256), "TQ1_0"), "norm.weight": ((8,), "F32"), "out.weight": ((2, 256), "TQ2_0")}
    file = _File(metadata, tensors, 0)
    _write(path, file, _contents(file))
    return path.read_bytes()
