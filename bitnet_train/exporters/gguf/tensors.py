"""Every tensor of the file, planned before a byte is written: names, shapes and types first, the bytes one by one.

1-bit layer        blocks of the type chosen for it; rows in llama.cpp's order
int8 table         Q8_0, the row's scale in each block; float32 where the row is no multiple of 32: both exact
float matrix       as it is stored; embedding and head as `export.tables` says
float vector       float32, which is what llama.cpp wants of norms and biases
tied head          left out: llama.cpp takes the embedding
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.container import FileTensor
from bitnet_train.exporters.gguf.rounded_table import TABLE_TYPES, encode_table
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.formats import q8_0
from bitnet_train.formats.ggml import GgmlType, encode_planes
from bitnet_train.gguf.architecture import GgufArchitecture
from bitnet_train.packed.manifest import LayerEntry, TableEntry
from bitnet_train.packed.names import bias_name
from bitnet_train.packed.source import PackedSource

_FLOAT_TYPES = {"float32": (0, 4), "float16": (1, 2), "bfloat16": (30, 2)}
"""Number in `enum ggml_type` and bytes a value of each stored dtype."""
_TABLES = ("token_embd.weight", "output.weight")


def plan_tensors(
    source: PackedSource, architecture: GgufArchitecture, kinds: Mapping[str, GgmlType], options: ExportOptions
) -> list[FileTensor]:
    """Return the tensors in the order of the file: embedding, blocks, the rest; `kinds` has each 1-bit layer's type.

    Raises FormatError for a tensor that llama.cpp has no place for in this architecture, or one that cannot be written
    as `export.tables` says.
    """
    plan = _Plan(source, architecture, kinds, options)
    return sorted(plan.tensors(), key=lambda tensor: _place_in_file(tensor.name))


@dataclass(frozen=True)
class _Plan:
    source: PackedSource
    architecture: GgufArchitecture
    kinds: Mapping[str, GgmlType]
    options: ExportOptions

    def tensors(self) -> Iterator[FileTensor]:
        for entry in self.source.layers.values():
            yield self.layer(entry)
            yield from self.bias(entry)
        for entry in self.source.tables.values():
            if not self.source.is_tied(entry.name):
                yield self.table(entry)
            yield from self.bias(entry)
        for name in self.source.floats:
            if not self.architecture.is_left_out(name):
                yield self.float(name)

    def layer(self, entry: LayerEntry) -> FileTensor:
        name, shape, kind = entry.name, (entry.num_outputs, entry.num_inputs), self.kinds[entry.name]
        num_bytes = entry.num_outputs * kind.row_bytes(entry.num_inputs)

        def make() -> np.ndarray:
            planes = self.reordered(name, self.source.planes(name).transpose(0, 1)).transpose(0, 1)
            scale = self.reordered(name, self.source.stored_scale(name).float())
            try:
                return encode_planes(planes, entry.num_inputs, entry.scheme.code_set, scale, kind.name).numpy()
            except FormatError as error:
                raise FormatError(f"{name}: {error}") from error

        return self.file_tensor(f"{name}.weight", shape, kind.id, num_bytes, make, of=name)

    def bias(self, entry: LayerEntry | TableEntry) -> Iterator[FileTensor]:
        if entry.has_bias:
            name = bias_name(entry.name)
            yield self.vector(name, self.source.manifest.tensors[name].shape)

    def table(self, entry: TableEntry) -> FileTensor:
        name, shape = entry.name, (entry.num_rows, entry.num_inputs)
        if entry.num_inputs % q8_0.BLOCK_WEIGHTS:
            type_id, num_bytes = _FLOAT_TYPES["float32"]
            return self.file_tensor(
                f"{name}.weight", shape, type_id, num_bytes * shape[0] * shape[1],
                lambda: self.source.dense(name).numpy(), of=name,
            )  # fmt: skip

        def make() -> np.ndarray:
            table = self.source.table(name)
            return q8_0.encode_q8_0(table.codes, table.scale).numpy()

        num_bytes = shape[0] * shape[1] // q8_0.BLOCK_WEIGHTS * q8_0.BLOCK_BYTES
        return self.file_tensor(f"{name}.weight", shape, q8_0.ID, num_bytes, make, of=name)

    def float(self, name: str) -> FileTensor:
        entry = self.source.floats[name]
        if len(entry.shape) == 1:
            return self.vector(name, entry.shape)
        if entry.dtype not in _FLOAT_TYPES or len(entry.shape) != 2:
            raise FormatError(
                f"{name} is {entry.dtype} {list(entry.shape)}; a GGUF holds vectors and matrices of floats."
            )
        shape = entry.shape[::-1] if self.architecture.is_transposed(name) else entry.shape
        if self.options.tables != "exact" and self.architecture.to_gguf(name) in _TABLES:
            return self.rounded(name, shape)
        type_id, item_bytes = _FLOAT_TYPES[entry.dtype]
        return self.file_tensor(
            name, shape, type_id, item_bytes * shape[0] * shape[1], lambda: _raw(self.matrix(name)), of=name
        )

    def rounded(self, name: str, shape: tuple[int, ...]) -> FileTensor:
        table_type = TABLE_TYPES[self.options.tables]
        if shape[1] % table_type.block_weights:
            raise FormatError(
                f"`export.tables={self.options.tables}`: the {shape[1]} values of a row of {name} are no multiple of "
                f"{table_type.block_weights}. Use `export.tables=f16` or exact."
            )
        num_bytes = shape[0] * shape[1] // table_type.block_weights * table_type.block_bytes
        return self.file_tensor(
            name, shape, table_type.id, num_bytes,
            lambda: encode_table(name, self.matrix(name), self.options.tables), of=name,
        )  # fmt: skip

    def vector(self, name: str, shape: tuple[int, ...]) -> FileTensor:
        def make() -> np.ndarray:
            values = self.source.float(name).float() + self.architecture.offset(name)
            return self.reordered(name.rpartition(".")[0], values).contiguous().numpy()

        return self.file_tensor(name, shape, _FLOAT_TYPES["float32"][0], 4 * shape[0], make, of=name)

    def matrix(self, name: str) -> Tensor:
        stored = self.source.float(name)
        tensor = stored.T if self.architecture.is_transposed(name) else stored
        return self.reordered(name.rpartition(".")[0], tensor).contiguous()

    def reordered(self, module: str, tensor: Tensor) -> Tensor:
        return self.architecture.rows_to_gguf(module, tensor, self.source.config)

    def file_tensor(
        self,
        hf_name: str,
        shape: tuple[int, ...],
        type_id: int,
        num_bytes: int,
        make: Callable[[], np.ndarray],
        *,
        of: str,
    ) -> FileTensor:
        name = self.architecture.to_gguf(hf_name)
        if name is None:
            raise FormatError(f"{hf_name}: llama.cpp's {self.architecture.name} has no such tensor. {_advice(hf_name)}")
        return FileTensor(name, tuple(shape), type_id, num_bytes, make, of)


def _advice(hf_name: str) -> str:
    if hf_name.startswith("lm_head"):
        return (
            "It always takes the token embedding as the head. Convert without the roles embedding and head, which "
            "untie the two, or use another `export.format`."
        )
    return "Use another `export.format` for this model."


def _raw(tensor: Tensor) -> np.ndarray:
    return tensor.view(torch.uint8).numpy()


def _place_in_file(name: str) -> tuple[int, int, str]:
    """Embedding first, then block by block, then what follows the blocks."""
    first, _, rest = name.partition(".")
    if first == "blk":
        return (1, int(rest.partition(".")[0]), name)
    return (0 if first in ("token_embd", "position_embd") else 2, 0, name)
