"""A GGUF whose weights are 1-bit already (Q1_0, Q2_0, TQ1_0, TQ2_0) as a model to train, evaluate and export again.

    codes, scale of every 1-bit weight     exactly the file's, in BitLinear and BitEmbedding (`one_bit_model`)
    other tensors                          exactly the file's where they are floats, dequantised where they are blocks
    rows and names                         Hugging Face's (`gguf_architecture`)

A 1-bit token embedding that is also the head becomes two layers with the same codes, because a head multiplies by
quantised activations and a look-up does not; written to a GGUF again, both are there. A 1-bit norm or table of
positions has no 1-bit layer and becomes the floats it stands for.

Two bits of Q2_0 and TQ2_0 can also say +2, a code that neither scheme has: such a tensor is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.formats.ggml import GGML_TYPES, decode, dequantize_blocks
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.model.gguf_architecture import GgufArchitecture, architecture_named
from bitnet_train.model.gguf_file import GgufFile, GgufTensor
from bitnet_train.model.gguf_metadata import EMBEDDING, ROPE_FACTORS, architecture_name, read_metadata
from bitnet_train.model.one_bit_model import OneBitWeight, empty_model, fill_one_bit
from bitnet_train.progress import track
from bitnet_train.quant.scheme import ActivationScheme

_ONE_BIT = {kind.id: kind for kind in GGML_TYPES.values()}
_HEAD = "output.weight"


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
    architecture = _architecture(gguf)
    config, tokenizer = read_metadata(gguf)
    model = _skeleton(gguf, config, dtype)
    tensors = _Tensors(gguf, architecture, config.to_dict(), dict(model.named_modules()))
    for name in track(list(gguf.tensors), "reading"):
        tensors.read(name)
    _share_head(tensors, model, gguf)
    record = fill_one_bit(model, tensors.one_bit, tensors.floats, activation)
    return model, tokenizer, record


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
    one_bit: dict[str, OneBitWeight] = field(default_factory=dict)
    floats: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str) -> None:
        if name == ROPE_FACTORS:  # part of the config
            return
        hf_name = self.architecture.to_hf(name)
        if hf_name is None:
            raise FormatError(
                f"{self.gguf.path}: {name} has no place in a model of architecture {self.architecture.name}."
            )
        tensor, (module, _, leaf) = self.gguf.tensors[name], hf_name.rpartition(".")
        if tensor.type_id in _ONE_BIT and leaf == "weight" and self._can_be_one_bit(module):
            self.one_bit[module] = self._one_bit(tensor, module)
        else:
            self.floats[hf_name] = self._float(tensor, hf_name)

    def _can_be_one_bit(self, module: str) -> bool:
        table = isinstance(self.modules.get(module), nn.Embedding)
        return "norm" not in module and (not table or self.architecture.to_gguf(f"{module}.weight") == EMBEDDING)

    def _one_bit(self, tensor: GgufTensor, module: str) -> OneBitWeight:
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

    def _float(self, tensor: GgufTensor, hf_name: str) -> Tensor:
        is_one_bit = tensor.type_id in _ONE_BIT
        values = dequantize_blocks(*self._decode(tensor)) if is_one_bit else dequantize_tensor(self.gguf, tensor)
        values = self._rows(hf_name.rpartition(".")[0], values.reshape(tensor.shape), tensor)
        if self.architecture.is_transposed(hf_name):
            values = values.t()
        offset = self.architecture.offset(hf_name)
        return values - offset if offset else values

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


def _share_head(tensors: _Tensors, model: PreTrainedModel, gguf: GgufFile) -> None:
    """Give a head that is the 1-bit embedding its own layer with the same codes."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules() if module in ends}
    embedding, head = (names.get(id(module)) for module in ends)
    if _HEAD not in gguf.tensors and embedding in tensors.one_bit and head is not None:
        tensors.one_bit[head] = tensors.one_bit[embedding]
