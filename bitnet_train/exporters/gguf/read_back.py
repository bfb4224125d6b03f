"""Decode the weights of a GGUF file from its bytes, and say what each has to be.

The file is opened by our own reader, which trusts no length in it. Names and rows become Hugging Face's again. A file
without an output head computes with its embedding, so that is yielded as the head too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.container import MODEL_NAME
from bitnet_train.exporters.gguf.rounded_table import TABLE_TYPES, round_table
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.formats.ggml import GGML_TYPES, decode, dequantize_blocks
from bitnet_train.formats.q8_0 import decode_q8_0
from bitnet_train.gguf.architecture import GgufArchitecture, architecture_named, architecture_of
from bitnet_train.gguf.file import GgufFile, GgufTensor, open_gguf
from bitnet_train.importers.gguf.one_bit_weights import dequantize_tensor
from bitnet_train.packed.source import PackedSource

_ROPE = "rope_"
_HEAD, _EMBEDDING = "lm_head.weight", "token_embd.weight"
_TABLE_NAMES = (_EMBEDDING, "output.weight")


def read_back(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight of the file at `path` (or of `model.gguf` in that folder) by our name for it, as float32.

    Raises
    ------
    FormatError
        When the file is damaged, or has a tensor of a type or name that this version does not know.
    """
    file = open_gguf(path / MODEL_NAME if path.is_dir() else path)
    architecture = architecture_named(str(file.metadata.get("general.architecture")))
    heads = _heads(file, architecture)
    for tensor in file.tensors.values():
        if not tensor.name.startswith(_ROPE):
            yield _weight(file, tensor, architecture, heads)
    if "output.weight" not in file.tensors and _EMBEDDING in file.tensors:
        yield _HEAD, _values(file, file.tensors[_EMBEDDING])


def expected(source: PackedSource, name: str, options: ExportOptions) -> Tensor:
    """Return what `read_back` has to yield for a weight of the packed folder: float32, bit for bit.

    That is `source.dense(name)` but for a table that `export.tables` rounds, and a norm of Gemma: the file holds
    1 + weight in float32, as the model computes it.
    """
    architecture, dense = architecture_of(source.config), source.dense(name)
    stored = source.tied.get(name, name)
    if stored in source.floats and options.tables in TABLE_TYPES and architecture.to_gguf(stored) in _TABLE_NAMES:
        return round_table(dense, options.tables)
    offset = architecture.offset(name)
    return (dense + offset) - offset if offset else dense


def _heads(file: GgufFile, architecture: GgufArchitecture) -> dict[str, int]:
    """What `rows_from_gguf` asks of a config."""
    heads = file.metadata.get(f"{architecture.name}.attention.head_count")
    pairs = file.metadata.get(f"{architecture.name}.attention.head_count_kv", heads)
    if not isinstance(heads, int) or not isinstance(pairs, int):
        raise FormatError(f"{file.path} does not state `{architecture.name}.attention.head_count` as a number.")
    return {"num_attention_heads": heads, "num_key_value_heads": pairs}


def _weight(
    file: GgufFile, tensor: GgufTensor, architecture: GgufArchitecture, heads: dict[str, int]
) -> tuple[str, Tensor]:
    name = architecture.to_hf(tensor.name)
    if name is None:
        raise FormatError(f"{file.path} has a tensor {tensor.name}, which a {architecture.name} model does not have.")
    values = architecture.rows_from_gguf(name.rpartition(".")[0], _values(file, tensor), heads)
    if architecture.is_transposed(name) and tensor.type_name in _FLOATS:
        values = values.T
    offset = architecture.offset(name)
    return name, values - offset if offset else values.contiguous()


def _values(file: GgufFile, tensor: GgufTensor) -> Tensor:
    rows, num_inputs, kind = file.rows(tensor.name), tensor.shape[-1], tensor.type_name
    if kind in _FLOATS:
        return _FLOATS[kind](rows).reshape(tensor.shape)
    blocks = torch.from_numpy(rows.copy())
    if kind.lower() in GGML_TYPES:
        return dequantize_blocks(*decode(blocks, num_inputs, kind.lower()))
    if kind == "Q8_0":
        return dequantize_blocks(*decode_q8_0(blocks, num_inputs))
    return dequantize_tensor(file, tensor).reshape(tensor.shape)  # a type that others write


def _from_bfloat16(rows: np.ndarray) -> Tensor:
    return torch.from_numpy((rows.view("<u2").astype(np.uint32) << 16).view(np.float32))


_FLOATS: dict[str, Callable[[np.ndarray], Tensor]] = {
    "F32": lambda rows: torch.from_numpy(rows.view("<f4").copy()),
    "F16": lambda rows: torch.from_numpy(rows.view("<f2").astype(np.float32)),
    "BF16": _from_bfloat16,
}
