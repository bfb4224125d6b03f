"""A packed folder as every other format is written from: one tensor at a time, never the whole model.

    with open_packed(folder) as source:
        for name in source.layers:
            one_bit = source.layer(name)        codes, scale, bias
        for name in source.floats:
            tensor = source.float(name)         as stored

`dense(name)` is the law `w = scale * code` in float32, one rounding a weight: what a reader of any exact format has to
get back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.packed.end_tokens import end_tokens
from bitnet_train.packed.entries import TensorParts
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry, TensorEntry
from bitnet_train.packed.names import (
    CONFIG_NAME,
    GENERATION_NAME,
    bias_name,
    codes_name,
    multipliers_name,
    planes_name,
    scale_name,
)
from bitnet_train.packed.reader import WeightsReader, open_weights, read_manifest, verify_files
from bitnet_train.quant.weight import dequantize

_BUFFERS = ("inv_freq", "original_inv_freq", "embed_scale")  # computed from the config by whoever reads another format


@dataclass(frozen=True)
class OneBitLayer:
    """A packed layer: codes int8 [N,K], scale float32 of the scheme's `scale_shape`, bias float32 [N] or None."""

    entry: LayerEntry
    codes: Tensor
    scale: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class TableValues:
    """The numbers of a table of any bits: codes int8 [V,K], scale float32 [V] of float16 values, bias [V] or None."""

    entry: TableEntry
    codes: Tensor
    scale: Tensor
    bias: Tensor | None


class PackedSource:
    """An open packed folder: what it holds by name, and each tensor when it is asked for."""

    def __init__(self, folder: Path, manifest: Manifest, weights: WeightsReader) -> None:
        self.folder, self.manifest = folder, manifest
        self._weights = weights
        self.config: dict[str, Any] = _read_object(folder, CONFIG_NAME)
        self.layers: dict[str, LayerEntry] = {layer.name: layer for layer in manifest.layers}
        self.tables: dict[str, TableEntry] = {table.name: table for table in manifest.tables}
        self.tied: dict[str, str] = manifest.tied
        parts = {name for layer in manifest.layers for name in layer.tensor_names}
        parts |= {name for table in manifest.tables for name in table.tensors}
        self._narrow = {codes_name(table.name): table for table in manifest.tables if table.bits < 8}
        self.floats: dict[str, TensorEntry] = {
            name: entry for name, entry in manifest.tensors.items() if name not in parts
        }

    def layer(self, name: str) -> OneBitLayer:
        """Return a packed layer by its module name."""
        stored = self._weights.layer(self.layers[name])
        return OneBitLayer(stored.entry, stored.codes(), stored.scale.float(), _widened(stored.bias))

    def planes(self, name: str) -> Tensor:
        """Return the planes of a packed layer as stored, uint8 [P, N, bytes]."""
        return self._weights.read(planes_name(name))

    def stored_scale(self, name: str) -> Tensor:
        """Return the scale of a packed layer in its stored type."""
        return self._weights.read(scale_name(name))

    def table(self, name: str) -> TableValues:
        """Return a table by its module name; of a tied pair both names give the same codes and scale."""
        stored = self._weights.table(self.tables[name])
        return TableValues(stored.entry, stored.codes, stored.scale.float(), _widened(stored.bias))

    def is_tied(self, name: str) -> bool:
        """Tell whether a table is another one's: then it has no codes of its own."""
        return codes_name(name) in self.tied

    def bias(self, name: str) -> Tensor | None:
        """Return the bias float32 [N] of a packed layer or a table; None where it has none."""
        return _widened(self._weights.bias((self.layers | self.tables)[name]))

    def float(self, name: str) -> Tensor:
        """Return a tensor that is not packed, in its stored dtype."""
        return self._weights.read(name)

    @property
    def int8_tensors(self) -> dict[str, TensorParts]:
        """Dtype and shape of every stored tensor, as if its tables were all of 8 bits, by name."""
        whole = {name: part for table in self._narrow.values() for name, part in table.int8_tensors.items()}
        spare = {multipliers_name(table.name) for table in self._narrow.values()}
        stored = self.manifest.tensors.items()
        return {name: whole.get(name, (entry.dtype, entry.shape)) for name, entry in stored if name not in spare}

    def int8_tensor(self, name: str) -> Tensor:
        """Return one of `int8_tensors`."""
        table = self._narrow.get(name)
        return self._weights.read(name) if table is None else self._weights.codes(table)

    def weight_names(self) -> list[str]:
        """Return everything a format has to carry: layers, tables, their biases, float tensors, no buffers.

        Each once: of a tied pair of tables, which a format may write twice, the one that is stored.
        """
        owners = [*self.layers.values(), *self.tables.values()]
        biases = [bias_name(owner.name) for owner in owners if owner.has_bias]
        floats = [name for name in self.floats if not name.endswith(_BUFFERS)]
        tables = [name for name in self.tables if not self.is_tied(name)]
        return [*self.layers, *tables, *biases, *floats]

    def dense(self, name: str) -> Tensor:
        """Return float32 values: of a layer or table [N,K] scale * code, of another tensor or a bias its own."""
        name = self.tied.get(name, name)
        if name in self.layers:
            layer = self.layer(name)
            return dequantize(layer.codes, layer.scale)
        if name in self.tables:
            table = self.table(name)
            return table.scale.unsqueeze(1) * table.codes.float()
        tensor = self._weights.read(name)
        return tensor.float() if tensor.is_floating_point() else tensor

    @cached_property
    def generation(self) -> dict[str, Any]:
        """The settings of `generation_config.json`; empty where the folder has none."""
        return _read_object(self.folder, GENERATION_NAME) if GENERATION_NAME in self.manifest.files else {}

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that end a text."""
        return end_tokens(self.generation, self.config)

    def companion(self, name: str) -> Path | None:
        """Return the path of another file of the folder, such as `tokenizer.json`, or None where it has none."""
        return self.folder / name if name in self.manifest.files else None


@contextmanager
def open_packed(folder: str | Path, *, verify: bool = True) -> Iterator[PackedSource]:
    """Open the packed folder at `folder`; with `verify`, every byte of it is checked against its manifest first.

    Raises
    ------
    FormatError
        When it is no packed folder, or a file of it is missing, damaged or changed.
    """
    manifest = verify_files(folder) if verify else read_manifest(folder)
    with open_weights(folder, manifest) as weights:
        yield PackedSource(Path(folder), manifest, weights)


def _widened(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.to(torch.float32)


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Copy the folder again, or export it again.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} must hold an object, not {type(content).__name__}. Export the model again.")
    return content
