"""What a model puts into `weights.safetensors`: packed layers, and everything else once and exactly.

Packed:     every 1-bit layer, linear or embedding: planes (bits), scale (the scheme's `scale_dtype`) and bias (the
            narrowest type that holds it), named as `names.py` says.
Tables:     the token embedding and the head that are (`int8_tables.py`): codes int8, or in fewer bits as
            `formats/narrow_codes.py` says, scale (float16) and bias (float32); of a tied pair once, the head's names in
            `tied`.
Not packed: every other parameter and persistent buffer in the narrowest type that holds it (`narrow.py`); tensors that
            share memory (tied embeddings) once, with their other names in `tied`; and floating-point buffers that a
            state dict leaves out (rotary frequencies), so that a reader computes with the very numbers of the training
            run, and not with what its version of `pow` makes of the config. Masks and positions are rebuilt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.formats.narrow_codes import pack_narrow
from bitnet_train.formats.planes import pack_planes
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.rounded_table import ROUNDED
from bitnet_train.packed.int8_tables import ToWrite, table_kind
from bitnet_train.packed.manifest import LayerEntry, TableEntry, TensorEntry, sha256_of
from bitnet_train.packed.names import bias_name, codes_name, multipliers_name, planes_name, scale_name, tied_names
from bitnet_train.packed.narrow import hashable, narrowest, same_bits
from bitnet_train.progress import track
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.table import table_codes


@dataclass
class Contents:
    """Tensors by stored name, packed layers in model order, tables, alias -> stored name of tied tensors."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    layers: list[LayerEntry] = field(default_factory=list)
    tables: list[TableEntry] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)

    def entries(self) -> dict[str, TensorEntry]:
        """Return the manifest's description of every tensor."""
        return {name: describe_tensor(tensor) for name, tensor in sorted(self.tensors.items())}


def describe_tensor(tensor: Tensor) -> TensorEntry:
    """Return dtype name, shape and hash of a CPU tensor."""
    return TensorEntry(dtype_name(tensor.dtype), tuple(tensor.shape), sha256_of(hashable(tensor)))


def dtype_name(dtype: torch.dtype) -> str:
    """Return `bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def collect(model: nn.Module, tables: Mapping[str, ToWrite]) -> Contents:
    """Gather what `model` (merged, float32, with at least one 1-bit layer) stores; it stays as it is.

    `tables` are its modules that become tables, by name (`int8_tables`).

    Raises
    ------
    FormatError
        When there is nothing to pack, a tensor is not float32, or a scale does not fit its type.
    """
    layers = bit_layers(model)
    if not layers:
        raise FormatError("There is nothing to pack: the model has no 1-bit layer. Convert it first.")
    contents = Contents()
    with torch.no_grad():
        for name, layer in track(layers.items(), "Packing", len(layers)):
            _add_layer(contents, name, layer)
        for name, table in tables.items():
            _add_table(contents, name, *table)
        _add_the_rest(contents, model, {*layers, *tables})
    return contents


def _add_layer(contents: Contents, name: str, layer: BitLayer) -> None:
    codes, scale = layer.quantized(layer.latent())  # given the latent, it keeps no codes: the next layer needs the room
    codes, scale = codes.cpu().contiguous(), scale.float().cpu()
    scheme = layer.weight_scheme
    _require_planes_of_scales(name, scale, scheme)
    stored_scale = scale.to(scheme.torch_scale_dtype).contiguous()
    if not same_bits(stored_scale.to(torch.float32), scale.contiguous()):
        raise FormatError(f"{name}: a scale is not representable in {scheme.scale_dtype}; it would change on disk.")
    contents.tensors[planes_name(name)] = pack_planes(codes, scheme.code_set)
    contents.tensors[scale_name(name)] = stored_scale
    if layer.bias is not None:
        contents.tensors[bias_name(name)] = narrowest(layer.bias.float())
    num_outputs, num_inputs = codes.shape
    contents.layers.append(
        LayerEntry(
            name=name,
            scheme=scheme,
            activation=layer.activation,
            num_outputs=num_outputs,
            num_inputs=num_inputs,
            has_bias=layer.bias is not None,
            codes_sha256=sha256_of(hashable(codes)),
            scale_sha256=sha256_of(hashable(stored_scale)),
            kind=layer.kind,
        )
    )


def _require_planes_of_scales(name: str, scale: Tensor, scheme: WeightScheme) -> None:
    """Raise FormatError for a scale whose multiple in the last plane is beyond the type it is stored in."""
    largest, limit = float(scale.max()), torch.finfo(scheme.torch_scale_dtype).max / scheme.num_magnitudes
    if not largest <= limit:
        raise FormatError(
            f"{name}: a scale of {largest:g} is above {limit:g}, beyond which {scheme.scale_dtype} cannot hold that of "
            f"the last of {scheme.planes} planes. Train it again with `weight.scale_dtype=float32`."
        )


def _add_table(contents: Contents, name: str, module: nn.Module, bits: int) -> None:
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    _require_float32(f"{name}.weight", weight)
    try:
        codes, scale = (part.cpu().contiguous() for part in table_codes(weight, bits))
    except ConversionError as error:
        raise FormatError(f"{name}: {error}") from error
    if isinstance(module, ROUNDED) and not _holds(codes, scale, weight):
        raise FormatError(
            f"{name}: its weights are not the int{bits} values it trained with; they would change on disk."
        )
    entry = TableEntry(
        name=name,
        kind=table_kind(module),
        num_rows=codes.shape[0],
        num_inputs=codes.shape[1],
        has_bias=bias is not None,
        codes_sha256=sha256_of(hashable(codes)),
        scale_sha256=sha256_of(hashable(scale)),
        bits=bits,
    )
    same = next((table for table in contents.tables if _is_same_table(table, entry)), None)
    if same is None:
        contents.tensors |= {**_stored_codes(name, codes, bits), scale_name(name): scale}
    else:
        contents.tied |= tied_names(name, same.name, bits)
    if bias is not None:
        contents.tensors[bias_name(name)] = bias.detach().cpu().to(torch.float32).contiguous()
    contents.tables.append(entry)


def _stored_codes(name: str, codes: Tensor, bits: int) -> dict[str, Tensor]:
    """Return by name what stores the codes int8 [V,K] of a table."""
    if bits == 8:
        return {codes_name(name): codes}
    planes, multipliers = map(torch.from_numpy, pack_narrow(codes.numpy(), bits))
    return {codes_name(name): planes, multipliers_name(name): multipliers}


def _holds(codes: Tensor, scale: Tensor, weight: Tensor) -> bool:
    return torch.equal(codes.float().mul_(scale.float().unsqueeze(1)), weight.detach().cpu())


def _is_same_table(a: TableEntry, b: TableEntry) -> bool:
    """Tell whether two tables have the same numbers: a tied pair, or one that might as well be tied."""
    return replace(a, name=b.name, kind=b.kind, has_bias=b.has_bias) == b


def _add_the_rest(contents: Contents, model: nn.Module, packed: set[str]) -> None:
    first_name: dict[tuple[object, ...], str] = {}
    for name, tensor in other_tensors(model, packed).items():
        _require_float32(name, tensor)
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        stored_name = first_name.setdefault(identity, name) if tensor.numel() else name
        if stored_name != name:
            contents.tied[name] = stored_name
        else:
            contents.tensors[name] = narrowest(tensor)


def _require_float32(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        raise FormatError(
            f"{name} is {dtype_name(tensor.dtype)}; a packed model computes in float32 and would give other "
            "logits. Call `model.float()` before the export, and evaluate that model."
        )


def other_tensors(model: nn.Module, packed: set[str]) -> dict[str, Tensor]:
    """Return by name every tensor outside the packed layers that a reader cannot rebuild from the config."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if prefix in packed or any(prefix.startswith(f"{name}.") for name in packed):
            continue
        own = {**module._parameters, **module._buffers}
        for leaf, tensor in own.items():
            rebuilt = leaf in module._non_persistent_buffers_set and not _is_floating(tensor)
            if tensor is not None and not rebuilt:
                found[f"{prefix}.{leaf}" if prefix else leaf] = tensor
    return found


def _is_floating(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point()
