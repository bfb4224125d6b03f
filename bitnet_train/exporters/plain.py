"""Write a packed folder as dense weights, `w = scale * code`, for any tool that reads a Hugging Face checkpoint.

Nothing in the folder says that it was 1-bit: a reader multiplies floats by floats, without rounding the inputs of a
layer to int8 as training did, so its logits are close to ours and not equal. `dtype: float32` keeps every weight
exactly; bfloat16 and float16 round it, and the record states by how much. Bfloat16 has 8 significant bits and float16
11, so a float16 scale survives `dtype: float16` exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitnet_train.errors import FormatError
from bitnet_train.exporters.hf_card import hf_card
from bitnet_train.exporters.hf_folder import (
    HfTensor,
    copy_companions,
    float_tensors,
    is_transposed,
    skeleton,
    stored_tensors,
    write_config,
    write_weights,
)
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.packed.names import bias_name
from bitnet_train.packed.source import PackedSource

_USAGE = """Dense {dtype} weights, `scale * code`, for any tool that reads Hugging Face checkpoints. {rounding}
A reader of this folder does not round the inputs of the layers to {activations}, as training did.
"""


@dataclass
class _Rounding:
    """The largest rounding of a weight so far: relative to the weight, and where."""

    relative: float = 0.0
    tensor: str = ""

    def see(self, name: str, exact: Tensor, rounded: Tensor) -> None:
        if not torch.isfinite(rounded).all():
            raise FormatError(
                f"{name} has a value of magnitude {float(exact.abs().max()):g}, which {rounded.dtype} cannot hold. Use "
                "`export.dtype=bfloat16` or `export.dtype=float32`."
            )
        error = ((rounded.float() - exact).abs_() / exact.abs().clamp_(min=torch.finfo(torch.float32).tiny)).max()
        if exact.numel() and float(error) > self.relative:
            self.relative, self.tensor = float(error), name


@dataclass
class _Writer:
    source: PackedSource
    model: PreTrainedModel
    dtype: torch.dtype
    rounding: _Rounding = field(default_factory=_Rounding)

    def tensors(self) -> list[HfTensor]:
        layers = [tensor for name in self.source.layers for tensor in self._layer(name)]
        return [self._rounded(tensor) for tensor in [*layers, *float_tensors(self.source, self.model)]]

    def _layer(self, name: str) -> Iterator[HfTensor]:
        entry, transposed = self.source.layers[name], is_transposed(self.model, name)
        shape = (entry.num_outputs, entry.num_inputs)

        def weight() -> Tensor:
            dense = self.source.dense(name)
            return dense.T if transposed else dense

        yield HfTensor(f"{name}.weight", torch.float32, shape[::-1] if transposed else shape, weight)
        if entry.has_bias:
            stored = bias_name(name)
            yield HfTensor(stored, torch.float32, shape[:1], lambda: self.source.dense(stored))

    def _rounded(self, tensor: HfTensor) -> HfTensor:
        if not tensor.dtype.is_floating_point:
            return tensor

        def make() -> Tensor:
            exact = tensor.make().float()
            rounded = exact.to(self.dtype)
            self.rounding.see(tensor.name, exact, rounded)
            return rounded

        return HfTensor(tensor.name, self.dtype, tensor.shape, make)


def check(source: PackedSource, options: ExportOptions) -> None:
    """Raise FormatError when transformers cannot build the model that the folder describes."""
    skeleton(source.folder)


def write(source: PackedSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the folder and return the facts for its record, the largest relative rounding of a weight among them.

    Raises FormatError when a weight is beyond the range of `options.dtype`.
    """
    writer = _Writer(source, skeleton(source.folder), getattr(torch, options.dtype))
    write_weights(folder, writer.tensors())
    write_config(source, folder, {"dtype": options.dtype})
    copy_companions(source, folder)
    rounding = writer.rounding
    (folder / "README.md").write_text(hf_card(source.manifest, _usage(source, options, rounding)), encoding="utf-8")
    return {
        "dtype": options.dtype,
        "exact": rounding.relative == 0,
        "largest_relative_rounding": rounding.relative,
        "most_rounded_tensor": rounding.tensor,
    }


def read_back(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a finished folder in float32, a weight as [N, K]."""
    model = skeleton(folder)
    for name, tensor in stored_tensors(folder):
        module, _, leaf = name.rpartition(".")
        flipped = leaf == "weight" and is_transposed(model, module)
        values = tensor.float() if tensor.is_floating_point() else tensor
        yield name, values.T.contiguous() if flipped else values


def expected(source: PackedSource, name: str, options: ExportOptions) -> Tensor:
    """Return what `read_back` has to yield for a weight of `source`: its values, rounded once to `options.dtype`."""
    dense = source.dense(name)
    return dense.to(getattr(torch, options.dtype)).float() if dense.is_floating_point() else dense


def _usage(source: PackedSource, options: ExportOptions, rounding: _Rounding) -> str:
    exactness = (
        "Every weight is exactly the trained one."
        if rounding.relative == 0
        else f"A weight is rounded by at most {rounding.relative:.2e} of itself (in `{rounding.tensor}`)."
    )
    activations = sorted({layer.activation.name for layer in source.layers.values() if layer.kind == "linear"})
    return _USAGE.format(dtype=options.dtype, rounding=exactness, activations=" or ".join(activations) or "integers")
