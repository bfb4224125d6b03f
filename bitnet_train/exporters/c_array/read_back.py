"""Decode a finished folder by `model.h` and `model.bin` alone, as firmware would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.exporters.c_array.header import TYPES, LayerRow, TensorRow, parse_header
from bitnet_train.formats.planes import unpack_planes
from bitnet_train.packed.names import bias_name, codes_name, scale_name
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import dequantize


def read_back(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight of a finished folder in float32, one at a time; rotary buffers are left out.

    Raises FormatError when the header or the binary is damaged.
    """
    layers, tensors = parse_header(folder / "model.h")
    data = np.memmap(folder / "model.bin", np.uint8, "r")
    for row in layers:
        yield row.name, _read_layer(data, row)
        if row.bias is not None:
            yield bias_name(row.name), _read(data, "BITNET_FLOAT32", (row.outputs,), row.bias)
    yield from _read_tensors(data, {row.name: row for row in tensors})


def _read_tensors(data: np.ndarray, rows: dict[str, TensorRow]) -> Iterator[tuple[str, Tensor]]:
    for name, row in rows.items():
        module, _, leaf = name.rpartition(".")
        if name == codes_name(module):
            scale = _read_tensor(data, rows[scale_name(module)]).float()
            yield module, scale.unsqueeze(1) * _read_tensor(data, row).float()
        elif not (name == scale_name(module) and codes_name(module) in rows) and not leaf.endswith("inv_freq"):
            yield name, _read_tensor(data, row).float()


def _read_tensor(data: np.ndarray, row: TensorRow) -> Tensor:
    return _read(data, row.type, row.shape[: row.rank], row.offset)


def _read_layer(data: np.ndarray, row: LayerRow) -> Tensor:
    planes = _read(data, "BITNET_UINT8", (row.num_planes, row.outputs, row.row_bytes), row.planes)
    code_set = WeightScheme(
        "ternary" if row.has_zero else "binary", planes=1 if row.has_zero else row.num_planes
    ).code_set
    shape = (1, 1) if row.one_scale else (row.outputs, row.inputs // row.group_size)
    codes = unpack_planes(planes, row.inputs, code_set)
    return dequantize(codes, _read(data, row.scale_type, shape, row.scales).float())


def _read(data: np.ndarray, kind: str, shape: tuple[int, ...], offset: int) -> Tensor:
    dtype = next(getattr(torch, name) for name, c_name in TYPES.items() if c_name == kind)
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset + num_bytes > len(data):
        raise FormatError(f"model.bin ends before byte {offset + num_bytes}, which model.h names. Export it again.")
    return torch.from_numpy(np.array(data[offset : offset + num_bytes])).view(dtype).reshape(shape)
