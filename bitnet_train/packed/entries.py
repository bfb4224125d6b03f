"""The rows of a manifest: files, tensors, packed layers and tables, each with the names of what stores it."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.formats.narrow_codes import narrow_shapes
from bitnet_train.packed.names import bias_name, codes_name, multipliers_name, planes_name, scale_name
from bitnet_train.quant.scheme import ActivationScheme, LayerKind, WeightScheme

TensorParts = tuple[str, tuple[int, ...]]
"""A dtype name and a shape."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the folder: its length in bytes and its SHA-256."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of `weights.safetensors`: torch dtype name, shape, SHA-256 of its stored bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class LayerEntry:
    """One packed layer [N,K]. An embedding is a table of N rows of width K, without bias, its activation "none"."""

    name: str
    scheme: WeightScheme
    activation: ActivationScheme
    num_outputs: int
    num_inputs: int
    has_bias: bool
    codes_sha256: str
    scale_sha256: str
    kind: LayerKind = "linear"

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of the tensors that store it."""
        names = planes_name(self.name), scale_name(self.name)
        return (*names, bias_name(self.name)) if self.has_bias else names


@dataclass(frozen=True)
class TableEntry:
    """One table [V,K] of 8, 5 or 4 bits; an embedding has no bias.

    The hashes are over the codes int8 [V,K], which a table of 8 bits stores so, and the scales as stored.
    """

    name: str
    kind: LayerKind
    num_rows: int
    num_inputs: int
    has_bias: bool
    codes_sha256: str
    scale_sha256: str
    bits: int = 8

    @property
    def int8_tensors(self) -> dict[str, TensorParts]:
        """Dtype and shape of codes, scale and bias by name, as a table of 8 bits stores them."""
        parts: dict[str, TensorParts] = {
            codes_name(self.name): ("int8", (self.num_rows, self.num_inputs)),
            scale_name(self.name): ("float16", (self.num_rows,)),
        }
        return {**parts, bias_name(self.name): ("float32", (self.num_rows,))} if self.has_bias else parts

    @property
    def tensors(self) -> dict[str, TensorParts]:
        """Dtype and shape of the tensors that store it, by name; of a tied pair the head's names are aliases."""
        if self.bits == 8:
            return self.int8_tensors
        codes, multipliers = narrow_shapes((self.num_rows, self.num_inputs), self.bits)
        narrow = {codes_name(self.name): ("uint8", codes), multipliers_name(self.name): ("uint8", multipliers)}
        return self.int8_tensors | narrow


@dataclass(frozen=True)
class Sizes:
    """Bytes of the packed layers, as planes, as scales, and as fp16 weights would be; and of the whole folder."""

    packed_bytes: int
    scale_bytes: int
    fp16_bytes: int
    total_bytes: int
