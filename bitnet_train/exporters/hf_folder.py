"""A folder that plain transformers loads: its config, its weights in files of at most 5 GB, and what lies beside them.

    model.safetensors                                          or, above 5 GB,
    model-00001-of-00003.safetensors ... and model.safetensors.index.json

Which names such a folder must have, and which of them transformers ties by itself, is asked of the model that
config.json describes, built without memory (`skeleton`). Buffers that a model computes from its config (rotary
frequencies) have no place in such a folder and are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bitnet_train.errors import FormatError
from bitnet_train.exporters.safetensors_stream import StreamedTensor, stream_safetensors
from bitnet_train.packed.names import CONFIG_MARKS, WEIGHTS_NAME, bias_name
from bitnet_train.packed.source import PackedSource

SHARD_BYTES = 5_000_000_000

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_WRITTEN_ANEW = ("config.json", "README.md", WEIGHTS_NAME)


@dataclass(frozen=True)
class HfTensor:
    """A tensor of the folder before it is made: name, dtype and shape in the file, and what makes it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        return StreamedTensor(self.name, self.dtype, self.shape).num_bytes


def skeleton(folder: Path) -> PreTrainedModel:
    """Build the causal LM that `config.json` describes on the `meta` device: modules and shapes, no memory.

    Raises FormatError when transformers knows no such model.
    """
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        for mark in CONFIG_MARKS:
            vars(config).pop(mark, None)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except Exception as error:  # a config from elsewhere can fail anywhere in the library
        raise FormatError(
            f"{folder / 'config.json'} describes no model that transformers can build: {error}. Export the model again "
            "with the transformers version that its manifest names."
        ) from error


def float_tensors(source: PackedSource, model: PreTrainedModel) -> list[HfTensor]:
    """Return every tensor of the folder that belongs to no packed layer: floats as stored, int8 tables in float32.

    Of a tied pair the head is left out where transformers ties it by itself, and given values of its own elsewhere.
    """
    names = set(model.state_dict())
    by_itself = set(model.all_tied_weights_keys)
    tensors = [_float(source, name, name) for name in source.floats if name in names]
    for alias, name in source.tied.items():
        if name in source.floats and alias in names and alias not in by_itself:
            tensors.append(_float(source, alias, name))
    for name in source.tables:
        if f"{name}.weight" not in by_itself or not source.is_tied(name):
            tensors.append(_table(source, name))
        if source.tables[name].has_bias:
            tensors.append(_float(source, bias_name(name), bias_name(name)))
    return tensors


def _float(source: PackedSource, name: str, stored: str) -> HfTensor:
    entry = source.manifest.tensors[stored]
    return HfTensor(name, getattr(torch, entry.dtype), entry.shape, lambda: source.float(stored))


def _table(source: PackedSource, name: str) -> HfTensor:
    entry = source.tables[name]
    shape = (entry.num_rows, entry.num_inputs)
    return HfTensor(f"{name}.weight", torch.float32, shape, lambda: source.dense(name))


def write_weights(folder: Path, tensors: Sequence[HfTensor]) -> None:
    """Write the weights, one tensor at a time, as one file or as shards with an index."""
    shards = _shards(tensors)
    if len(shards) == 1:
        return _write_shard(folder / _FILE, tensors)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shard)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(tensor.num_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return None


def _write_shard(path: Path, tensors: Sequence[HfTensor]) -> None:
    makers = {tensor.name: tensor.make for tensor in tensors}
    listed = [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
    stream_safetensors(path, listed, lambda name: makers[name](), {"format": "pt"})


def _shards(tensors: Sequence[HfTensor]) -> list[list[HfTensor]]:
    """Split in order; a tensor larger than a shard has one of its own."""
    shards: list[list[HfTensor]] = [[]]
    room = SHARD_BYTES
    for tensor in tensors:
        if shards[-1] and tensor.num_bytes > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(tensor)
        room -= tensor.num_bytes
    return shards


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a folder in this layout, ours or another's: its name and its values as stored.

    Raises FormatError when there is none, or a file is damaged.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FormatError(f"{folder} has no {_FILE}. Export it again.")
    for path in files:
        try:
            with safe_open(path, framework="pt", device="cpu") as stream:
                for name in stream.keys():  # noqa: SIM118 - no mapping
                    yield name, stream.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{path} cannot be read: {error}. Copy the folder again.") from error


def write_config(source: PackedSource, folder: Path, changes: dict[str, Any]) -> None:
    """Write config.json: the source's own, without what makes it a packed folder, and with `changes`."""
    config = {key: value for key, value in source.config.items() if key not in (*CONFIG_MARKS, "torch_dtype")}
    text = json.dumps({**config, **changes}, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def copy_companions(source: PackedSource, folder: Path) -> None:
    """Copy tokenizer, chat template and generation settings as they are."""
    for name in source.manifest.files:
        path = source.companion(name)
        if name not in _WRITTEN_ANEW and path is not None:
            shutil.copyfile(path, folder / name)


def is_transposed(model: nn.Module, name: str) -> bool:
    """Tell whether a module of `skeleton` keeps its weight as [K, N] (GPT-2's Conv1D)."""
    return type(model.get_submodule(name)).__name__ == "Conv1D"
