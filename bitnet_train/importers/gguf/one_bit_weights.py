"""A GGUF as a model: its tensors under Hugging Face's names and in its row order, each in a place or refused by name.

Of a file with 1-bit weights (Q1_0, Q2_0, TQ1_0, TQ2_0), to train, evaluate and export again:

    codes, scale of every 1-bit weight     exactly the file's, in BitLinear and BitEmbedding (`one_bit_model`)
    other tensors                          exactly the file's where they are floats, dequantised where they are blocks
    rows and names                         Hugging Face's (`gguf_architecture`)

A 1-bit token embedding that is also the head becomes two layers with the same codes, because a head multiplies by
quantised activations and a look-up does not; written to a GGUF again, both are there. A 1-bit norm or table of
positions has no 1-bit layer and becomes the floats it stands for.

Two bits of Q2_0 and TQ2_0 can also say +2, a code that neither scheme has: such a tensor is refused.

Of a file without them (`import_float_gguf`) every value is rounded to bfloat16, so that what stays float is stored in
two bytes. In both, a bias that the file leaves out beside others of its kind is 0, which llama.cpp computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.formats.ggml import GGML_TYPES, decode, dequantize_blocks
from bitnet_train.gguf.architecture import ARCHITECTURES, GgufArchitecture, architecture_named
from bitnet_train.gguf.file import GgufFile, GgufTensor
from bitnet_train.importers.gguf.config import BIAS_SWITCHES, EMBEDDING, HEAD
from bitnet_train.importers.gguf.metadata import architecture_name, read_metadata
from bitnet_train.importers.gguf.rope import ROPE_TENSORS
from bitnet_train.importers.one_bit_model import OneBitWeight, empty_model, fill_floats, fill_one_bit
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.progress import track
from bitnet_train.quant.scheme import ActivationScheme

_ONE_BIT = {kind.id: kind for kind in GGML_TYPES.values() if kind.is_one_bit}


def is_one_bit(gguf: GgufFile) -> bool:
    """Whether a GGUF holds a tensor of a 1-bit type."""
    return any(tensor.type_id in _ONE_BIT for tensor in gguf.tensors.values())


def import_gguf(
    gguf: GgufFile, activation: ActivationScheme, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ConversionRecord]:
    """The model in evaluation mode, its tokenizer, and the record that names its 1-bit layers.

    `activation` quantises the inputs of the 1-bit layers, `dtype` is that of everything else.

    Raises FormatError for an architecture, type, code or scale that cannot be kept exactly, and for tensors that do
    not fit the metadata.
    """
    model, tokenizer, tensors = _open(gguf, dtype)
    one_bit, floats = {}, dict(tensors.absent_biases(model))
    for name in track(tensors.names(), "reading"):
        module = tensors.one_bit_module(name)
        if module is not None:
            one_bit[module] = tensors.one_bit(name, module)
        else:
            hf_name, value = tensors.dense(name)
            floats[hf_name] = value
    _share_head(one_bit, model, gguf)
    record = fill_one_bit(model, one_bit, floats, activation)
    return model, tokenizer, record


def import_float_gguf(gguf: GgufFile, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode, its values rounded to bfloat16 and kept in `dtype`, and its tokenizer.

    Raises FormatError for an architecture or a type that is not read here, for a tensor that has no place, and for one
    that is missing or of another shape than the metadata says.
    """
    model, tokenizer, tensors = _open(gguf, dtype)
    fill_floats(model, chain(tensors.absent_biases(model), tensors.rounded()))
    return model, tokenizer


def is_known(gguf: GgufFile) -> bool:
    """Whether the architecture is one of ours, read with its row order and all of its config."""
    return any(architecture.name == gguf.metadata.get("general.architecture") for architecture in ARCHITECTURES)


def _open(gguf: GgufFile, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, _Tensors]:
    architecture = _architecture(gguf)
    config, tokenizer = read_metadata(gguf)
    model = _skeleton(gguf, config, dtype)
    return model, tokenizer, _Tensors(gguf, architecture, config.to_dict(), dict(model.named_modules()))


def _architecture(gguf: GgufFile) -> GgufArchitecture:
    try:
        return architecture_named(architecture_name(gguf))
    except ConversionError as error:
        raise FormatError(f"{gguf.path}: {error}") from None


def _skeleton(gguf: GgufFile, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return empty_model(config, dtype)
    except Exception as error:  # of any kind: sizes that contradict each other fail wherever they meet
        raise FormatError(f"{gguf.path}: no model can be built from its metadata: {error}.") from error


@dataclass
class _Tensors:
    """The tensors of a file under the names of the model they belong to."""

    gguf: GgufFile
    architecture: GgufArchitecture
    config: Mapping[str, Any]
    modules: Mapping[str, nn.Module]

    def names(self) -> list[str]:
        """Those that are no part of the config."""
        return [name for name in self.gguf.tensors if name not in ROPE_TENSORS]

    def hf_name(self, name: str) -> str:
        hf_name = self.architecture.to_hf(name)
        if hf_name is None:
            raise FormatError(
                f"{self.gguf.path}: {name} has no place in a model of architecture {self.architecture.name}."
            )
        return hf_name

    def one_bit_module(self, name: str) -> str | None:
        """The layer that a tensor makes 1-bit."""
        module, _, leaf = self.hf_name(name).rpartition(".")
        is_one_bit = self.gguf.tensors[name].type_id in _ONE_BIT
        return module if is_one_bit and leaf == "weight" and self._can_be_one_bit(module) else None

    def rounded(self) -> Iterator[tuple[str, Tensor]]:
        for name in track(self.names(), "reading"):
            hf_name, value = self.dense(name)
            yield hf_name, value.to(torch.bfloat16)

    def absent_biases(self, model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
        """Zeros for the biases that the file leaves out, and that a switch in the config gives every layer."""
        layers = {layer for switch, some in BIAS_SWITCHES.items() if switch in self.config for layer in some}
        for hf_name, parameter in model.named_parameters():
            name = self.architecture.to_gguf_bias(hf_name)
            if name and name not in self.gguf.tensors and name.split(".")[-2] in layers:
                yield hf_name, torch.zeros_like(parameter)

    def _can_be_one_bit(self, module: str) -> bool:
        table = isinstance(self.modules.get(module), nn.Embedding)
        return "norm" not in module and (not table or self.architecture.to_gguf(f"{module}.weight") == EMBEDDING)

    def one_bit(self, name: str, module: str) -> OneBitWeight:
        tensor = self.gguf.tensors[name]
        codes, scale = self._decode(tensor)
        codes, scale = (self._rows(module, part, tensor) for part in (codes, scale))
        return OneBitWeight(f"{self.gguf.path}: {tensor.name}", codes, scale, tensor.type_name)

    def _decode(self, tensor: GgufTensor) -> tuple[Tensor, Tensor]:
        blocks = torch.from_numpy(np.array(self.gguf.rows(tensor.name)))
        try:
            codes, scale = decode(blocks, tensor.shape[-1], _ONE_BIT[tensor.type_id].name)
        except FormatError as error:
            raise FormatError(f"{self.gguf.path}: {tensor.name}: {error}") from None
        wrong = codes > 1
        if wrong.any():
            row, column = (int(index) for index in torch.nonzero(wrong)[0])
            raise FormatError(
                f"{self.gguf.path}: {tensor.name} has the code +2 in row {row}, input {column}; a {tensor.type_name} "
                "weight can be trained here when its codes are -1, 0 and +1."
            )
        return codes, scale

    def dense(self, name: str) -> tuple[str, Tensor]:
        """Hugging Face's name of a tensor, and its float32 values as they stand there."""
        tensor, hf_name = self.gguf.tensors[name], self.hf_name(name)
        is_one_bit = tensor.type_id in _ONE_BIT
        values = dequantize_blocks(*self._decode(tensor)) if is_one_bit else dequantize_tensor(self.gguf, tensor)
        values = self._rows(hf_name.rpartition(".")[0], values.reshape(tensor.shape), tensor)
        if self.architecture.is_transposed(hf_name):
            values = values.t()
        offset = self.architecture.offset(hf_name)
        return hf_name, values - offset if offset else values

    def _rows(self, module: str, part: Tensor, tensor: GgufTensor) -> Tensor:
        try:
            return self.architecture.rows_from_gguf(module, part, self.config)
        except ConversionError as error:
            raise FormatError(f"{self.gguf.path}: {tensor.name}: {error}") from None


def dequantize_tensor(file: GgufFile, tensor: GgufTensor) -> Tensor:
    """A tensor of any type that the `gguf` package knows, as float32; FormatError names one that it does not."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        values = dequantize(file.rows(tensor.name), GGMLQuantizationType(tensor.type_id))
    except (NotImplementedError, ValueError) as error:
        raise FormatError(
            f"{file.path}: {tensor.name} is of type {tensor.type_name}, which the `gguf` package cannot turn into "
            f"floats: {error}."
        ) from error
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _share_head(one_bit: dict[str, OneBitWeight], model: PreTrainedModel, gguf: GgufFile) -> None:
    """Give a head that is the 1-bit embedding its own layer with the same codes."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules() if module in ends}
    embedding, head = (names.get(id(module)) for module in ends)
    if HEAD not in gguf.tensors and embedding in one_bit and head is not None:
        one_bit[head] = one_bit[embedding]
