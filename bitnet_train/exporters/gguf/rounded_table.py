"""Round a float token embedding or head where `export.tables` asks for it: half the bytes, or a quarter, of float32.

The `gguf` package rounds to Q8_0 as llama.cpp does. What is rounded here is not what was trained, so it is never the
default, and the record of the export names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.container import require_package

_CHUNK_ROWS = 8192  # float32 rows in memory at a time


@dataclass(frozen=True)
class TableType:
    """Number in `enum ggml_type`, weights and bytes of a block."""

    id: int
    block_weights: int
    block_bytes: int


TABLE_TYPES: Mapping[str, TableType] = MappingProxyType({"f16": TableType(1, 1, 2), "q8_0": TableType(8, 32, 34)})
"""What `export.tables` may say, besides exact."""


def encode_table(name: str, table: Tensor, type_name: str) -> np.ndarray:
    """Round a float table [V, K] and return its bytes, uint8 [V, row bytes].

    Raises FormatError when a value is beyond the range of float16.
    """
    return np.concatenate([_encode_rows(name, rows.float(), type_name) for rows in table.split(_CHUNK_ROWS)])


def round_table(table: Tensor, type_name: str) -> Tensor:
    """Return the float32 values [V, K] that a file with this table rounded holds."""
    return torch.cat([_round_rows(rows.float(), type_name) for rows in table.split(_CHUNK_ROWS)])


def _encode_rows(name: str, rows: Tensor, type_name: str) -> np.ndarray:
    if type_name == "q8_0":
        gguf = require_package()
        return gguf.quants.quantize(rows.contiguous().numpy(), gguf.GGMLQuantizationType.Q8_0)
    half = rows.half()
    if not torch.isfinite(half).all():
        raise FormatError(
            f"{name} has a value of magnitude {float(rows.abs().max()):g}, which float16 cannot hold. "
            "Use `export.tables=exact` or q8_0."
        )
    return half.contiguous().view(torch.uint8).numpy()


def _round_rows(rows: Tensor, type_name: str) -> Tensor:
    if type_name == "q8_0":
        gguf = require_package()
        q8_0 = gguf.GGMLQuantizationType.Q8_0
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(rows.contiguous().numpy(), q8_0), q8_0))
    return rows.half().float()
