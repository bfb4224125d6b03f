"""Write a packed folder for firmware: one block of bytes, a C header that says where everything lies, and an example.

    model.bin      planes, scales and every other tensor as stored, each at a multiple of 16 bytes
    model.h        the layout in prose and two tables, of layers and of tensors; plain C99
    example.c      runs one layer and compares its outputs by ==
    expected.h     inputs and outputs of that layer, by the kernels of this package

The planes are those of `planes_v1`, the rows a kernel on a small device can count bits in. The text of the header and
the example lie in `assets/c_array`. A model without a layer that takes integer inputs has no example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.exporters.c_array.example import example_layer, expected_header
from bitnet_train.exporters.c_array.header import LARGEST_RANK, TYPES, LayerRow, TensorRow, asset, header_text
from bitnet_train.exporters.c_array.read_back import read_back
from bitnet_train.exporters.hf_card import hf_card
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.formats.planes import row_bytes
from bitnet_train.packed.names import bias_name
from bitnet_train.packed.narrow import bytes_of
from bitnet_train.packed.source import PackedSource
from bitnet_train.progress import track

__all__ = ["check", "read_back", "write"]

ALIGNMENT_BYTES = 16

_INPUTS = {
    "int8": "BITNET_INPUTS_INT8",
    "int4": "BITNET_INPUTS_INT4",
    "sign": "BITNET_INPUTS_SIGN",
    "none": "BITNET_INPUTS_FLOAT",
}
_KINDS = {"linear": "BITNET_LINEAR", "embedding": "BITNET_EMBEDDING"}

_USAGE = """For firmware: `model.bin` is one block of {num_bytes:,} bytes, `model.h` says where everything lies in it.
{example}"""
_EXAMPLE = """
`example.c` runs `{layer}` and compares its outputs with those of the program that trained it:

    cc -std=c99 -O2 -ffp-contract=off example.c -o example && ./example model.bin
"""


@dataclass
class _Binary:
    """`model.bin` while it is written: arrays one after another, each aligned."""

    path: Path
    num_bytes: int = 0

    def add(self, tensor: Tensor) -> int:
        """Append the bytes of a tensor and return where they begin."""
        padding = -self.num_bytes % ALIGNMENT_BYTES
        data = bytes_of(tensor).numpy().data
        with self.path.open("ab") as stream:
            stream.write(bytes(padding))
            stream.write(data)
        begin = self.num_bytes + padding
        self.num_bytes = begin + data.nbytes
        return begin


def check(source: PackedSource, options: ExportOptions) -> None:
    """Raise FormatError for a tensor that the header has no type for, or a name that is no C string."""
    for name, (dtype, shape) in source.int8_tensors.items():
        if dtype not in TYPES or len(shape) > LARGEST_RANK or max(shape, default=0) >= 1 << 32:
            raise FormatError(
                f"{name} is {dtype} {list(shape)}, and model.h describes {', '.join(TYPES)} of at most "
                f"{LARGEST_RANK} dimensions. Use `export=plain`."
            )
        if not re.fullmatch(r"[\w.\-/]+", name, re.ASCII):
            raise FormatError(f"The tensor name {name[:80]!r} cannot be a C string. Use `export=plain`.")


def write(source: PackedSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the folder and return the facts for its record."""
    binary = _Binary(folder / "model.bin")
    rows = [_add_layer(binary, source, name) for name in track(source.layers, "Writing layers", len(source.layers))]
    tensors = [*_add_tensors(binary, source)]
    header = header_text(rows, tensors, binary.num_bytes, source.end_tokens)
    (folder / "model.h").write_text(header, encoding="ascii")
    layer = example_layer(source)
    if layer is not None:
        (folder / "expected.h").write_text(expected_header(source, layer), encoding="ascii")
        (folder / "example.c").write_text(asset("example.c"), encoding="ascii")
    example = "" if layer is None else _EXAMPLE.format(layer=layer)
    usage = _USAGE.format(num_bytes=binary.num_bytes, example=example)
    (folder / "README.md").write_text(hf_card(source.manifest, usage, library="c"), encoding="utf-8")
    return {"num_bytes": binary.num_bytes, "layers": len(rows), "tensors": len(tensors), "example_layer": layer}


def _add_layer(binary: _Binary, source: PackedSource, name: str) -> LayerRow:
    entry = source.layers[name]
    scheme = entry.scheme
    return LayerRow(
        name=name,
        kind=_KINDS[entry.kind],
        num_planes=scheme.num_planes,
        has_zero=int(scheme.has_zero),
        inputs_are=_INPUTS[entry.activation.name],
        scale_type=TYPES[scheme.scale_dtype],
        one_scale=int(scheme.granularity == "tensor"),
        outputs=entry.num_outputs,
        inputs=entry.num_inputs,
        row_bytes=row_bytes(entry.num_inputs),
        group_size=scheme.inputs_per_scale(entry.num_inputs),
        planes=binary.add(source.planes(name)),
        scales=binary.add(source.stored_scale(name)),
        bias=binary.add(source.dense(bias_name(name))) if entry.has_bias else None,
    )


def _add_tensors(binary: _Binary, source: PackedSource) -> Iterator[TensorRow]:
    """Append what belongs to no layer, codes of tables in int8 among it; a tied name points to what it is tied to."""
    layers = {name for layer in source.layers.values() for name in layer.tensor_names}
    offsets: dict[str, int] = {}
    tensors = source.int8_tensors
    for name, (dtype, shape) in tensors.items():
        if name not in layers:
            offsets[name] = binary.add(source.int8_tensor(name))
            yield _tensor_row(name, dtype, shape, offsets[name])
    for alias, name in source.tied.items():
        if name in tensors:
            yield _tensor_row(alias, *tensors[name], offsets[name])


def _tensor_row(name: str, dtype: str, shape: tuple[int, ...], offset: int) -> TensorRow:
    return TensorRow(name, TYPES[dtype], len(shape), (*shape, *[1] * (LARGEST_RANK - len(shape))), offset)
