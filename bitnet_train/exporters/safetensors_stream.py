"""Write a safetensors file one tensor at a time: memory for the largest tensor, not for the model.

    byte 0..7            byte 8 .. 8+n                        byte 8+n ..
    n, uint64 little     n bytes of JSON, padded with         data; a tensor lies at data_offsets [begin, end) of it
                         spaces to a multiple of 8

Shapes and dtypes are known before the first tensor is made, so the header comes first and every tensor has its place.
The layout is that of the `safetensors` library, byte for byte: wide dtypes before narrow ones, then by name, so that
each tensor starts at a multiple of its element's size (a reader that maps the file needs that). Tensors are *made* in
the order in which the caller lists them and put where they belong, so that what is computed together is made together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from bitnet_train.disk import needing
from bitnet_train.packed.narrow import bytes_of
from bitnet_train.progress import track

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""Name of a dtype in the header, in the order of the library: the last lies first in a file."""

_LENGTH_BYTES = 8
_RANKS = {dtype: rank for rank, dtype in enumerate(DTYPE_NAMES)}


class StreamedTensor(NamedTuple):
    """What is known of a tensor before it is made: its name in the file, dtype and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * self.dtype.itemsize


def stream_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
    produce: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write `path` and return its length in bytes; it is flushed to the disk.

    Parameters
    ----------
    path
        A file that does not exist yet, or may be replaced.
    tensors
        (name, dtype, shape) of every tensor, in the order in which they shall be made.
    produce
        Makes the tensor of a name; asked once for each, and the answer is dropped before the next.
    metadata
        Text by name, into the header; `{"format": "pt"}` where Hugging Face is to read the file.

    Raises
    ------
    OSError
        When the disk is full, read-only, or not permitted; a full disk is mostly found before the first tensor is made.
    """
    planned = [StreamedTensor(name, dtype, tuple(shape)) for name, dtype, shape in tensors]
    header, begins, num_bytes = _layout(planned, metadata or {"format": "pt"})
    with path.open("wb") as stream:
        stream.write(header)
        with needing(num_bytes):
            _reserve(stream, num_bytes)
        for planned_tensor in track(planned, f"Writing {path.name}", len(planned)):
            stream.seek(begins[planned_tensor.name])
            stream.write(_data(produce(planned_tensor.name), planned_tensor))
        stream.flush()
        os.fsync(stream.fileno())
    return num_bytes


def _layout(tensors: list[StreamedTensor], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """Return the header with its length, where in the file each tensor begins, and the length of the file."""
    assert len({tensor.name for tensor in tensors}) == len(tensors), "a tensor is named twice"
    body: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets: dict[str, int] = {}
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (-_RANKS[tensor.dtype], tensor.name)):
        offsets[tensor.name], end = end, end + tensor.num_bytes
        body[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offsets[tensor.name], end],
        }
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    start = _LENGTH_BYTES + len(text)
    header = len(text).to_bytes(_LENGTH_BYTES, "little") + text
    return header, {name: start + offset for name, offset in offsets.items()}, start + end


def _reserve(stream: BinaryIO, num_bytes: int) -> None:
    """Claim the whole length from the file system, so that a full disk is found now and not after hours of work."""
    stream.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, num_bytes)
    else:
        stream.truncate(num_bytes)


def _data(tensor: Tensor, planned: StreamedTensor) -> memoryview:
    found = (tensor.dtype, tuple(tensor.shape))
    assert found == (planned.dtype, planned.shape), f"{planned.name}: {found} was made where {planned} was announced"
    return bytes_of(tensor.cpu()).numpy().data
