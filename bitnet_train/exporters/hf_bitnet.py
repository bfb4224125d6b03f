"""Write a packed folder as `quant_method: bitnet`, which transformers loads without this package (`formats.hf_bitnet`).

    <layer>.weight        uint8 [N / 4, K]
    <layer>.weight_scale  float32 [1]: the scale (`autobitlinear`) or one over it (`bitlinear`)
    <layer>.bias          float32 [N]: the bias, for `autobitlinear` divided by the scale

The model keeps its own architecture (`model_type: bitnet` has norms that other models lack). What stays float keeps its
exact values: int8 tables in float32, and the rest for `bitlinear` in the narrow types of the packed folder. For
`autobitlinear` all of it is float32, as transformers (5.23) then casts no tensor called `weight` to the type of the
model, and fails at the first product of two types. What the reader computes:

    bitlinear      integers, then acc / (weight_scale * s): equal to ours up to six float32 roundings a layer
    autobitlinear  round(x * s) / s in floats, times the codes, times weight_scale: sums of K rounded products, and
                   the output is (product + bias / scale) * scale, as the reader multiplies bias and product alike

Both take s = 127 * (1 / max|x|), where we round once, 127 / max|x|: a code of an input whose x * s lies within one
float32 rounding of a half can differ by one. Not held by the format, and refused: scales finer than one a tensor, 1-bit
embeddings, inputs that are not int8, rows that are no multiple of four, layers that are no plain nn.Linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

from bitnet_train.errors import FormatError
from bitnet_train.exporters.hf_card import hf_card
from bitnet_train.exporters.hf_folder import (
    HfTensor,
    copy_companions,
    float_tensors,
    skeleton,
    stored_tensors,
    write_config,
    write_weights,
)
from bitnet_train.exporters.options import ExportOptions, LinearClass
from bitnet_train.formats.hf_bitnet import (
    CODES_A_BYTE,
    from_weight_scale,
    pack_strided,
    to_weight_scale,
    unpack_strided,
)
from bitnet_train.json_text import parse_json
from bitnet_train.packed.manifest import LayerEntry
from bitnet_train.packed.names import bias_name
from bitnet_train.packed.source import PackedSource
from bitnet_train.quant.weight import dequantize

_OTHERS = "`export=plain` and `export=gguf` have no such limit"


def check(source: PackedSource, options: ExportOptions) -> None:
    """Raise FormatError for the first layer that this format cannot hold; only scales are read."""
    for layer in source.layers.values():
        _check_layer(layer)
    model = skeleton(source.folder)
    _check_modules(source, model, _not_converted(source, model))
    for name, layer in source.layers.items():
        scale = source.stored_scale(name).item()
        if scale == 0:
            raise FormatError(f"{name} has the scale 0, and hf_bitnet divides by it; {_OTHERS}.")
        try:
            to_weight_scale(scale, options.linear_class)
        except FormatError as error:
            raise FormatError(
                f"{name} cannot be written as hf_bitnet: {error}. Use `export.linear_class=autobitlinear`, or train "
                f"with `weight.scale_dtype=float16` instead of {layer.scheme.scale_dtype}."
            ) from error


def write(source: PackedSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the folder and return the facts for its record."""
    model = skeleton(source.folder)
    linear_class = options.linear_class
    layers = [tensor for name in source.layers for tensor in _layer_tensors(source, name, linear_class)]
    floats = float_tensors(source, model)
    write_weights(folder, [*layers, *(map(_widened, floats) if linear_class == "autobitlinear" else floats)])
    write_config(
        source, folder, {"dtype": "float32", "quantization_config": _quantization_config(source, model, linear_class)}
    )
    copy_companions(source, folder)
    divided = [name for name, layer in source.layers.items() if layer.has_bias and linear_class == "autobitlinear"]
    facts = {
        "linear_class": linear_class,
        "weight_scale": "scale" if linear_class == "autobitlinear" else "1 / scale",
        "biases_divided_by_the_scale": len(divided),
        "tables_in_float32": list(source.tables),
    }
    (folder / "README.md").write_text(hf_card(source.manifest, _usage(linear_class)), encoding="utf-8")
    return facts


def read_back(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight of a folder in this layout, ours or another's, in float32; a 1-bit one as scale * code.

    Raises FormatError when a layer has no scale or the files are damaged.
    """
    linear_class = _stated_class(folder)
    scales = {
        name.removesuffix("_scale"): from_weight_scale(tensor.float().item(), linear_class)
        for name, tensor in stored_tensors(folder)
        if name.endswith(".weight_scale")
    }
    for name, tensor in stored_tensors(folder):
        weight = f"{name.rpartition('.')[0]}.weight"
        if tensor.dtype == torch.uint8 and name not in scales:
            raise FormatError(f"{name} has packed codes and no `weight_scale` beside it. Export the model again.")
        if name in scales:
            yield name, dequantize(unpack_strided(tensor), torch.tensor([[scales[name]]]))
        elif name.endswith(".bias") and weight in scales and linear_class == "autobitlinear":
            yield name, tensor.float() * scales[weight]
        elif not name.endswith(".weight_scale"):
            yield name, tensor.float()


def expected(source: PackedSource, name: str, options: ExportOptions) -> Tensor:
    """Return what `read_back` has to yield: `source.dense(name)`, or a bias after division and multiplication."""
    module = name.rpartition(".")[0]
    if name == bias_name(module) and module in source.layers and options.linear_class == "autobitlinear":
        scale = source.stored_scale(module).float().reshape(1)
        return source.dense(name) / scale * scale
    return source.dense(name)


def _stated_class(folder: Path) -> LinearClass:
    path = folder / "config.json"
    try:
        stated = parse_json(path.read_text(encoding="utf-8"))["quantization_config"]
        linear_class = stated.get("linear_class", "bitlinear")  # the default of transformers
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} has no readable `quantization_config`: {error}. Copy the folder again.") from error
    for known in get_args(LinearClass):
        if linear_class == known:
            return known
    raise FormatError(
        f"{path}: `linear_class` is {str(linear_class)[:40]!r}. Allowed: {', '.join(get_args(LinearClass))}."
    )


def _layer_tensors(source: PackedSource, name: str, linear_class: LinearClass) -> list[HfTensor]:
    entry = source.layers[name]

    def weight() -> Tensor:
        return pack_strided(source.layer(name).codes)

    def weight_scale() -> Tensor:
        return torch.tensor([to_weight_scale(source.stored_scale(name).item(), linear_class)])

    def bias() -> Tensor:
        stored = source.dense(bias_name(name))
        return stored / source.stored_scale(name).float().reshape(1) if linear_class == "autobitlinear" else stored

    tensors = [
        HfTensor(f"{name}.weight", torch.uint8, (entry.num_outputs // CODES_A_BYTE, entry.num_inputs), weight),
        HfTensor(f"{name}.weight_scale", torch.float32, (1,), weight_scale),
    ]
    if entry.has_bias:
        tensors.append(HfTensor(bias_name(name), torch.float32, (entry.num_outputs,), bias))
    return tensors


def _widened(tensor: HfTensor) -> HfTensor:
    if not tensor.dtype.is_floating_point:
        return tensor
    return HfTensor(tensor.name, torch.float32, tensor.shape, lambda: tensor.make().float())


def _check_layer(layer: LayerEntry) -> None:
    scheme = layer.scheme
    if layer.kind == "embedding":
        raise FormatError(
            f"{layer.name} is a 1-bit token embedding, and transformers' bitnet has 1-bit linear layers only: it would "
            f"load the packed rows as an embedding. Train without `embedding` in `model.roles`; {_OTHERS}."
        )
    if scheme.planes > 1:
        raise FormatError(
            f"{layer.name} is {scheme.describe()}, and hf_bitnet holds the codes -1, 0 and +1. Train with "
            f"`weight.planes=1`, or keep the planes: {_OTHERS}."
        )
    if scheme.granularity != "tensor":
        raise FormatError(
            f"{layer.name} has {scheme.describe()} scales, and hf_bitnet holds one scale a matrix. Train with "
            f"`weight={scheme.name}_tensor`, or keep the finer scales: {_OTHERS}."
        )
    if layer.num_outputs % CODES_A_BYTE:
        raise FormatError(
            f"{layer.name} has {layer.num_outputs} rows, and hf_bitnet keeps {CODES_A_BYTE} rows in a byte: the number "
            f"must be a multiple of {CODES_A_BYTE}. Leave this layer out with `model.exclude`; {_OTHERS}."
        )
    if layer.activation.name != "int8":
        raise FormatError(
            f"{layer.name} was trained with `activation={layer.activation.name}`, and transformers' bitnet rounds "
            f"every input to int8: it would compute something else. Train with `activation=int8`; {_OTHERS}."
        )


def _check_modules(source: PackedSource, model: PreTrainedModel, not_converted: list[str]) -> None:
    """Check that transformers makes exactly our packed layers 1-bit, by its own rule about names."""
    patterns = [*not_converted, *(model._keep_in_fp32_modules or ())]
    for name in source.layers:
        if type(model.get_submodule(name)) is not nn.Linear:
            raise FormatError(
                f"{name} is a {type(model.get_submodule(name)).__name__} in {type(model).__name__}, and transformers' "
                f"bitnet replaces nn.Linear only; {_OTHERS}."
            )
        if not should_convert_module(name, patterns):
            raise FormatError(
                f"{name} is 1-bit, but by its name transformers takes it for one of the float layers "
                f"{', '.join(patterns[:4])} and would load its packed bytes as weights; {_OTHERS}."
            )


def _not_converted(source: PackedSource, model: PreTrainedModel) -> list[str]:
    """Return the linear layers that stay float, the head among them."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linear if name not in source.layers]


def _quantization_config(source: PackedSource, model: PreTrainedModel, linear_class: LinearClass) -> dict[str, Any]:
    return {
        "quant_method": "bitnet",
        "linear_class": linear_class,
        "quantization_mode": "offline",
        "modules_to_not_convert": _not_converted(source, model),
    }


def _usage(linear_class: LinearClass) -> str:
    meaning = "`weight_scale` multiplies" if linear_class == "autobitlinear" else "`weight_scale` divides"
    return (
        "In the layout of transformers' `quant_method: bitnet`, "
        f"`linear_class: {linear_class}` ({meaning} the output).\n\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM\n"
        'model = AutoModelForCausalLM.from_pretrained(".")   # transformers alone is enough\n'
        "```\n\n"
        "On a CPU set `TORCHDYNAMO_DISABLE=1`: transformers would otherwise compile the unpacking first.\n"
    )
