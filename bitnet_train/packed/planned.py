"""The packed folder that a model will make, before it is trained: names, shapes and types, and no weight.

    with planned_source(model, tokenizer) as source:
        exporter_of("gguf").check(source, options)

An exporter's `check` reads no large tensor, so it can be asked before hours of training and not after. Of the values it
asks for scales alone; here each is one third, which has to be rounded in every type, as a trained scale has. What
depends on the trained values cannot be known: a scale that becomes 0, or one without a reciprocal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.formats.planes import NUM_PLANES, row_bytes
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.packed.contents import dtype_name, other_tensors
from bitnet_train.packed.int8_tables import ToWrite, int8_tables, table_kind
from bitnet_train.packed.manifest import FileEntry, LayerEntry, Manifest, TableEntry, TensorEntry
from bitnet_train.packed.names import bias_name, planes_name, scale_name, tied_names
from bitnet_train.packed.sizes import measure_sizes, tensor_bytes
from bitnet_train.packed.source import PackedSource
from bitnet_train.packed.writer import versions, write_companions

_SCALE = 1 / 3
_HASH_CHARACTERS = 64  # of SHA-256, which a plan leaves empty
_UNPLANNED_BYTES = 16_384  # the card, and what the manifest says of the training: a few thousand


class _NoWeights:
    """Answers for scales."""

    def __init__(self, manifest: Manifest) -> None:
        self._tensors = manifest.tensors
        self._scales = {scale_name(entry.name) for entry in (*manifest.layers, *manifest.tables)}

    def read(self, name: str) -> Tensor:
        assert name in self._scales, f"a check asked for {name}, which is not trained yet"
        entry = self._tensors[name]
        return torch.full(entry.shape, _SCALE, dtype=getattr(torch, entry.dtype))


@contextmanager
def planned_source(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    embedding: str = "exact",
    head: str = "exact",
) -> Iterator[PackedSource]:
    """Yield the source of a converted model; its parameters may be on the `meta` device.

    Raises ConfigError as `export_packed` does for `embedding` and `head`.
    """
    planned = _describe(model, int8_tables(model, embedding=embedding, head=head))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_companions(model, tokenizer, folder)
        manifest = replace(planned, files={path.name: FileEntry(0, "") for path in folder.iterdir()})
        weights: Any = _NoWeights(manifest)
        yield PackedSource(folder, manifest, weights)


def planned_bytes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, *, embedding: str, head: str
) -> int:
    """Return the most bytes that the folder of a converted model will take, a few thousand above what it does."""
    with planned_source(model, tokenizer, embedding=embedding, head=head) as source:
        manifest = source.manifest
        written = sum(path.stat().st_size for path in source.folder.iterdir())
        hashes = _HASH_CHARACTERS * (len(manifest.tensors) + 2 * len(manifest.layers))
        told = 2 * len(manifest.to_json()) + hashes + _UNPLANNED_BYTES  # native.json says less than the manifest
        return sum(map(tensor_bytes, manifest.tensors.values())) + written + told


def _describe(model: PreTrainedModel, tables: Mapping[str, ToWrite]) -> Manifest:
    """Return the manifest of the folder, without its files; `tables` are the modules that become tables."""
    one_bit = bit_layers(model)
    layers = [_layer(name, layer) for name, layer in one_bit.items()]
    entries = [_table(name, *table) for name, table in tables.items()]
    floats, tied_floats = _others(model, {*one_bit, *tables})
    tied = _tied_tables(tables) | tied_floats
    tensors = _packed_tensors(layers, entries)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in tied} | floats
    return Manifest(
        created_by=versions(),
        base_model="",
        recipe="",
        model_class=type(model).__name__,
        attention="",
        layers=tuple(layers),
        tensors=tensors,
        tied=tied,
        files={},
        sizes=measure_sizes(layers, tensors, total_bytes=0),
        facts={},
        tables=tuple(entries),
    )


def _packed_tensors(layers: Sequence[LayerEntry], tables: Sequence[TableEntry]) -> dict[str, TensorEntry]:
    found: dict[str, TensorEntry] = {}
    for layer in layers:
        found |= _layer_tensors(layer)
    for table in tables:
        found |= {name: TensorEntry(dtype, shape, "") for name, (dtype, shape) in table.tensors.items()}
    return found


def _layer(name: str, layer: BitLayer) -> LayerEntry:
    num_outputs, num_inputs = layer.latent().shape
    has_bias = layer.bias is not None
    return LayerEntry(
        name, layer.weight_scheme, layer.activation, num_outputs, num_inputs, has_bias, "", "", layer.kind
    )


def _layer_tensors(entry: LayerEntry) -> dict[str, TensorEntry]:
    scheme, shape = entry.scheme, (entry.num_outputs, entry.num_inputs)
    planes = (NUM_PLANES[scheme.code_set], entry.num_outputs, row_bytes(entry.num_inputs))
    found = {
        planes_name(entry.name): TensorEntry("uint8", planes, ""),
        scale_name(entry.name): TensorEntry(scheme.scale_dtype, tuple(scheme.scale_shape(*shape)), ""),
    }
    bias = {bias_name(entry.name): TensorEntry("float32", (entry.num_outputs,), "")} if entry.has_bias else {}
    return found | bias


def _table(name: str, module: nn.Module, bits: int) -> TableEntry:
    num_rows, num_inputs = module.get_parameter("weight").shape
    has_bias = getattr(module, "bias", None) is not None
    return TableEntry(name, table_kind(module), num_rows, num_inputs, has_bias, "", "", bits)


def _tied_tables(tables: Mapping[str, ToWrite]) -> dict[str, str]:
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, (module, bits) in tables.items():
        kept = first.setdefault(id(module.get_parameter("weight")), name)
        if kept != name:
            tied |= tied_names(name, kept, bits)
    return tied


def _others(model: nn.Module, packed: set[str]) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Return every tensor outside the packed layers, and alias -> name of those that are one object."""
    first: dict[int, str] = {}
    entries: dict[str, TensorEntry] = {}
    tied: dict[str, str] = {}
    for name, tensor in other_tensors(model, packed).items():
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            tied[name] = kept
        else:
            entries[name] = TensorEntry(dtype_name(tensor.dtype), tuple(tensor.shape), "")
    return entries, tied
