"""The rows of a manifest: files, tensors, packed layers and int8 tables, each with the names of what stores it."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.packed.names import bias_name, codes_name, planes_name, scale_name
from bitnet_train.quant.scheme import ActivationScheme, LayerKind, WeightScheme


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
    """One int8 table [V,K]; an embedding has no bias. The hashes are over the codes and scales as stored."""

    name: str
    kind: LayerKind
    num_rows: int
    num_inputs: int
    has_bias: bool
    codes_sha256: str
    scale_sha256: str

    @property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of the tensors that store it, by name; of a tied pair the head's names are aliases."""
        parts: dict[str, tuple[str, tuple[int, ...]]] = {
            codes_name(self.name): ("int8", (self.num_rows, self.num_inputs)),
            scale_name(self.name): ("float16", (self.num_rows,)),
        }
        return {**parts, bias_name(self.name): ("float32", (self.num_rows,))} if self.has_bias else parts


@dataclass(frozen=True)
class Sizes:
    """Bytes of the packed layers, as planes, as scales, and as fp16 weights would be; and of the whole folder."""

    packed_bytes: int
    scale_bytes: int
    fp16_bytes: int
    total_bytes: int
