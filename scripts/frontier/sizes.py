"""What a model takes on disk: all bytes, those of its weights, and in which types these are stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from bitnet_train.gguf.file import open_gguf
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.names import bias_name, planes_name, scale_name
from bitnet_train.packed.reader import read_manifest
from bitnet_train.packed.sizes import tensor_bytes


@dataclass(frozen=True)
class Size:
    """Bytes of the file, or of all files of the folder, with tokenizer and settings; `stored_as` is of the weights."""

    file_bytes: int
    stored_as: dict[str, int]

    def facts(self, parameters: int) -> dict[str, Any]:
        """Return the figures; bits per weight are over all `parameters` of the original."""
        weight_bytes = sum(self.stored_as.values())
        return {
            "file_bytes": self.file_bytes,
            "weight_bytes": weight_bytes,
            "bits_per_weight": 8 * weight_bytes / parameters,
            "stored_as": dict(sorted(self.stored_as.items(), key=lambda item: -item[1])),
        }


def gguf_size(path: Path) -> Size:
    """Return the size of a GGUF file."""
    stored: Counter[str] = Counter()
    for tensor in open_gguf(path).tensors.values():
        stored[tensor.type_name] += tensor.num_bytes
    return Size(path.stat().st_size, dict(stored))


def gguf_parameters(path: Path) -> int:
    """Return how many numbers the tensors of a GGUF file hold; what is tied counts once."""
    return sum(prod(tensor.shape) for tensor in open_gguf(path).tensors.values())


def folder_size(folder: Path) -> Size:
    """Return the size of a packed folder."""
    manifest = read_manifest(folder)
    stored: Counter[str] = Counter()
    kinds = _kinds(manifest)
    for name, entry in manifest.tensors.items():
        if name not in manifest.tied:
            stored[kinds.get(name, entry.dtype)] += tensor_bytes(entry)
    return Size(sum(path.stat().st_size for path in folder.iterdir() if path.is_file()), dict(stored))


def _kinds(manifest: Manifest) -> dict[str, str]:
    """Return what the tensors of 1-bit layers and of tables are part of, by name."""
    layers = {
        part(layer.name): layer.scheme.describe() for layer in manifest.layers for part in (planes_name, scale_name)
    }
    tables = {name: f"int{table.bits}" for table in manifest.tables for name in table.tensors}
    biases = {bias_name(table.name) for table in manifest.tables}
    return layers | {name: kind for name, kind in tables.items() if name not in biases}
