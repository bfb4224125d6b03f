"""How large the packed layers are, and how large they were: bytes, never rounded.

fp16 stores a weight in 16 bits, a binary plane in 1: packed = fp16 / 16 exactly whenever K is a multiple of 64 (a row
is padded to whole 64-bit words), plus the scales, 2 bytes each in fp16. A ternary layer has two planes, 1/8, and a
binary one as many as `weight.planes`. An int8 table takes half of fp16 plus 2 bytes a row, one of 4 or 5 bits that many
and half a byte for 32 inputs; a table has a line of its own and is in no sum of the packed layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from bitnet_train.model.patterns import star_numbers
from bitnet_train.packed.manifest import LayerEntry, Manifest, Sizes, TableEntry, TensorEntry
from bitnet_train.packed.names import bias_name, codes_name, planes_name, scale_name

FP16_BYTES = 2


@dataclass(frozen=True)
class LayerSize:
    """Bytes of one packed layer or table [N,K]: its codes, its scales, and the fp16 weight that they stand for."""

    name: str
    shape: tuple[int, int]
    packed_bytes: int
    scale_bytes: int
    fp16_bytes: int


def layer_sizes(layers: Sequence[LayerEntry], tensors: Mapping[str, TensorEntry]) -> list[LayerSize]:
    """Return the size of every packed layer, in model order."""
    return [
        LayerSize(
            name=layer.name,
            shape=(layer.num_outputs, layer.num_inputs),
            packed_bytes=tensor_bytes(tensors[planes_name(layer.name)]),
            scale_bytes=tensor_bytes(tensors[scale_name(layer.name)]),
            fp16_bytes=FP16_BYTES * layer.num_outputs * layer.num_inputs,
        )
        for layer in layers
    ]


def table_sizes(tables: Sequence[TableEntry], tied: Mapping[str, str]) -> list[LayerSize]:
    """Return the size of every table that is stored; one that is tied to another takes nothing."""
    return [
        LayerSize(
            name=table.name,
            shape=(table.num_rows, table.num_inputs),
            packed_bytes=_codes_bytes(table),
            scale_bytes=FP16_BYTES * table.num_rows,
            fp16_bytes=FP16_BYTES * table.num_rows * table.num_inputs,
        )
        for table in tables
        if codes_name(table.name) not in tied
    ]


def _codes_bytes(table: TableEntry) -> int:
    """Return the bytes of a table's codes and multipliers."""
    apart = (scale_name(table.name), bias_name(table.name))
    return sum(math.prod(shape) for name, (_, shape) in table.tensors.items() if name not in apart)


def measure_sizes(layers: Sequence[LayerEntry], tensors: Mapping[str, TensorEntry], total_bytes: int) -> Sizes:
    """Return the sums over all layers, with the bytes of the whole folder passed through."""
    each = layer_sizes(layers, tensors)
    return Sizes(
        packed_bytes=sum(size.packed_bytes for size in each),
        scale_bytes=sum(size.scale_bytes for size in each),
        fp16_bytes=sum(size.fp16_bytes for size in each),
        total_bytes=total_bytes,
    )


def tensor_bytes(entry: TensorEntry) -> int:
    """Return the bytes that a stored tensor takes."""
    return math.prod(entry.shape) * getattr(torch, entry.dtype).itemsize


def size_report(manifest: Manifest) -> list[LayerSize]:
    """Return the size of every packed layer of a folder, in model order; the totals are in `manifest.sizes`."""
    return layer_sizes(manifest.layers, manifest.tensors)


def render_sizes(manifest: Manifest) -> Table:
    """Return the size report as a table of 80 columns, one line a family of equal layers, sums at the end."""
    table = Table(title="Packed layers, bytes with their scales", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("layer", "layers", "fp16", "packed", "smaller"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=column != "layer")
    for name, sizes in _families(size_report(manifest)):
        _add_row(table, name, sizes)
    if manifest.layers:
        _add_row(table, "all", size_report(manifest))
    bits = {entry.name: entry.bits for entry in manifest.tables}
    for size in table_sizes(manifest.tables, manifest.tied):
        _add_row(table, f"{size.name}, int{bits[size.name]}", [size])
    table.caption = f"Whole folder: {manifest.sizes.total_bytes:,} bytes"
    return table


def _families(sizes: Sequence[LayerSize]) -> list[tuple[str, list[LayerSize]]]:
    """Group layers by name without block numbers, and apart where their sizes differ."""
    families: dict[tuple[str, tuple[int, int], int], list[LayerSize]] = {}
    for size in sizes:
        families.setdefault((star_numbers(size.name), size.shape, size.packed_bytes), []).append(size)
    return [(each[0].name if len(each) == 1 else family, each) for (family, *_), each in families.items()]


def _add_row(table: Table, name: str, sizes: Sequence[LayerSize]) -> None:
    fp16 = sum(size.fp16_bytes for size in sizes)
    packed = sum(size.packed_bytes + size.scale_bytes for size in sizes)
    table.add_row(name, str(len(sizes)), f"{fp16:,}", f"{packed:,}", f"{fp16 / packed:.2f}x")
