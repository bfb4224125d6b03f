"""`example.c` and the inputs and outputs it compares with, made by the kernels of this package."""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.packed.manifest import LayerEntry
from bitnet_train.packed.source import PackedSource


def example_layer(source: PackedSource) -> str | None:
    """Return the smallest linear layer whose inputs are integers of 4 or 8 bits."""
    fitting = [
        layer
        for layer in source.layers.values()
        if layer.kind == "linear" and layer.activation.name in ("int8", "int4")
    ]
    return min(fitting, key=lambda layer: layer.num_outputs * layer.num_inputs).name if fitting else None


def expected_header(source: PackedSource, name: str) -> str:
    """Return `expected.h`: random inputs of the layer `name`, and its outputs."""
    entry = source.layers[name]
    inputs = torch.randn(entry.num_inputs, generator=torch.Generator().manual_seed(0))
    outputs = _product(source, entry, inputs)
    index = list(source.layers).index(name)
    return (
        f"/* What {name} gives for some inputs. Hexadecimal floats are exact. */\n"
        f"#define EXPECTED_LAYER {index}\n\n"
        f"static const float expected_inputs[] = {{\n{_c_floats(inputs)}}};\n\n"
        f"static const float expected_outputs[] = {{\n{_c_floats(outputs)}}};\n"
    )


def _product(source: PackedSource, entry: LayerEntry, inputs: Tensor) -> Tensor:
    """Return the outputs float32 [N] of one packed layer for inputs float32 [K], by the kernels of this package."""
    planes, scale = source.planes(entry.name), source.stored_scale(entry.name).float()
    bias = source.bias(entry.name)
    layer = PackedLinear.from_planes(planes, scale, bias, entry.num_inputs, entry.scheme, entry.activation)
    return layer(inputs.reshape(1, -1)).reshape(-1)


def _c_floats(values: Tensor) -> str:
    words = [f"{value.hex()}f" for value in values.tolist()]
    return "".join(f"    {', '.join(words[i : i + 4])},\n" for i in range(0, len(words), 4))
