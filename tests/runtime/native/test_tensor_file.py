from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bitnet_train.errors import FormatError
from bitnet_train.runtime.native.tensor_file import TensorFile

TENSORS = {
    "half": torch.tensor([1.5, -0.0, 65504.0], dtype=torch.float16),
    "brain": torch.tensor([[1.0, -2.5e38], [3e-39, float("inf")]], dtype=torch.bfloat16),
    "full": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
    "planes": torch.arange(24, dtype=torch.uint8).reshape(1, 3, 8),
    "codes": torch.arange(-4, 4, dtype=torch.int8).reshape(2, 4),
    "empty": torch.zeros(0, 7),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "file", metadata={"format": "pt"})
    return tmp_path / "file"


def written(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file whose header may be any JSON value or any bytes, and whose length field may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def mapped_kilobytes(path: Path) -> int:
    """Return how much of a mapped file is in this process's memory."""
    maps = Path("/proc/self/smaps").read_text().split("VmFlags")
    return sum(int(found[1]) for part in maps if str(path) in part and (found := re.search(r"Rss:\s+(\d+) kB", part)))


@pytest.mark.parametrize("name", ["half", "brain", "full"])
def test_floats_are_widened_exactly(path: Path, name: str) -> None:
    with TensorFile(path) as file:
        values = file.float32(name)
    assert values.dtype == np.float32
    assert values.flags.writeable
    assert torch.equal(torch.from_numpy(values).view(torch.int32), TENSORS[name].float().view(torch.int32))


@pytest.mark.parametrize("name", ["planes", "codes"])
def test_bytes_are_views_of_the_file_that_nobody_can_change(path: Path, name: str) -> None:
    with TensorFile(path) as file:
        values = file.array(name)
        assert np.array_equal(values, TENSORS[name].numpy())
        assert not values.flags.writeable
        assert not values.flags.owndata


def test_an_array_outlives_the_file_and_forgotten_pages_come_back(path: Path) -> None:
    with TensorFile(path) as file:
        values = file.array("planes")
        file.forget()
        assert values[0, 2, 7] == 23
    assert np.array_equal(values, TENSORS["planes"].numpy())


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="no /proc")
def test_forgotten_pages_are_no_memory_of_the_process(path: Path) -> None:
    with TensorFile(path) as file:
        assert file.array("planes").any()
        assert mapped_kilobytes(path) > 0
        file.forget()
        assert mapped_kilobytes(path) == 0


def test_rows_of_bytes_are_the_stored_bits(path: Path) -> None:
    with TensorFile(path) as file:
        rows = file.rows_of_bytes("brain")
        assert rows.shape == (2, 4)
        assert rows.tobytes() == TENSORS["brain"].view(torch.uint8).numpy().tobytes()
        assert file.tensors["brain"].dtype == "bfloat16"
        assert file.tensors["empty"].shape == (0, 7)
        assert file.metadata == {"format": "pt"}


def test_a_float_that_is_none_is_refused(path: Path) -> None:
    with TensorFile(path) as file, pytest.raises(FormatError, match="planes is uint8 where a float tensor belongs"):
        file.float32("planes")


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        ({"a": entry(0, 4)}, b"1234", 1 << 63, "its header would be 9223372036854775808 bytes, and 64 are there"),
        ({"a": entry(0, 4)}, b"1234", 1 << 20, "cut short or no safetensors file"),
        ({"a": entry(0, 4)}, b"123", None, "is cut short: .* bytes, and the tensors end at"),
        ({"a": entry(0, 4)}, b"12345", None, "is longer than its tensors"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456", None, "'b' overlaps the tensor before it"),
        ({"a": entry(0, 2), "b": entry(3, 4)}, b"1234", None, "'b' leaves unnamed bytes before it"),
        ({"a": entry(0, 4, [5])}, b"1234", None, r"claims 5 bytes by its shape, and data_offsets \[0, 4\]"),
        ({"a": entry(0, 4, [1 << 62, 1 << 62])}, b"1234", None, "claims .* bytes by its shape"),
        ({"a": entry(4, 0, [1])}, b"1234", None, "claims 1 bytes by its shape"),
        ({"a": entry(-4, 0, [4])}, b"1234", None, "must be a whole number below 2.63, not -4"),
        ({"a": entry(0, 4, [2.0, 2])}, b"1234", None, "must be a whole number"),
        ({"a": entry(0, 4, [True, 4])}, b"1234", None, "must be a whole number below 2.63, not True"),
        ({"a": entry(0, 4, dtype="F4")}, b"1234", None, "has dtype 'F4'. Allowed: F64"),
        ({"a": {**entry(0, 4), "more": 1}}, b"1234", None, "fields that this version does not know: `more`"),
        ({"a": {"dtype": "U8", "shape": [4]}}, b"1234", None, "has no field `data_offsets`"),
        ({"a": {**entry(0, 4), "data_offsets": [0]}}, b"1234", None, "data_offsets"),
        ({"a": [0, 4]}, b"1234", None, "must be an object"),
        ({"__metadata__": {"a": 1}}, b"", None, "must be a string"),
        ({"__metadata__": "a"}, b"", None, "`__metadata__` must be an object"),
        ([], b"", None, "holds a JSON list"),
        (b'{"a": 1, "a": 1}', b"", None, "a field is given twice"),
        (b'{"a": ' + b"[" * 100_000, b"", None, "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", b"", None, "not valid JSON"),
        (b'{"\xff": 1}', b"", None, "the header is not UTF-8"),
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: object, data: bytes, length: int | None, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        TensorFile(written(tmp_path / "file", header, data, length))


def test_an_empty_missing_or_tiny_file_is_refused(tmp_path: Path) -> None:
    for content in (None, b"", b"1234567"):
        path = tmp_path / "file"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FormatError, match=r"cannot be read|cut short"):
            TensorFile(path)
