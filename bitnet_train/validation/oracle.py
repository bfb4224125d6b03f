"""Stand-ins that compute by the reference: for packed layers, where the trained model is not at hand, and int8 tables.

Of an int8 table that was rounded on the way out the trained model has the float weights. To be compared, it is given
stand-ins for a while whose codes are made from those weights, not read from the folder: the same rounding, by other
means. A table that trained rounded computes as the folder does by itself (`model.rounded_table`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.kernels import reference, reference_int8
from bitnet_train.model.rounded_table import ROUNDED
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry
from bitnet_train.packed.stored import StoredLayer, StoredTable
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.table import table_codes
from bitnet_train.quant.weight import dequantize


class OracleLinear(nn.Module):
    """x [.., K] to [.., N] from codes int8 [N,K] and scale float32, by `kernels.reference`: no planes, no kernel."""

    def __init__(self, entry: LayerEntry, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._entry = entry
        self._codes = codes
        self._scale = scale
        self._bias = bias

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output in the dtype of x."""
        entry = self._entry
        rows = x.reshape(-1, entry.num_inputs).float()
        if entry.activation.name == "none":
            y = F.linear(rows, dequantize(self._codes, self._scale), self._bias)
        else:
            x_codes, x_scale = quantize_activation(rows, entry.activation)
            group = entry.scheme.inputs_per_scale(entry.num_inputs)
            y = reference.linear(x_codes, x_scale, self._codes, self._scale, self._bias, group, entry.scheme.planes)
        return y.reshape(*x.shape[:-1], entry.num_outputs).to(x.dtype)


class OracleEmbedding(nn.Module):
    """Token ids [..] to rows [.., K] of the unpacked table, float32."""

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self._table = dequantize(codes, scale)

    @torch.no_grad()
    def forward(self, token_ids: Tensor) -> Tensor:
        """Return the rows asked for."""
        return F.embedding(token_ids, self._table)


def oracle(layer: StoredLayer) -> nn.Module:
    """Return the stand-in for a packed layer."""
    codes, scale = layer.codes(), layer.scale.float()
    if layer.entry.kind == "embedding":
        return OracleEmbedding(codes, scale)
    return OracleLinear(layer.entry, codes, scale, None if layer.bias is None else layer.bias.float())


class OracleInt8Linear(nn.Module):
    """x [.., K] to [.., V] from codes int8 [V,K] and scale float32 [V], by `kernels.reference_int8`."""

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._codes, self._scale, self._bias = codes, scale, bias

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output in the dtype of x."""
        y = reference_int8.int8_linear(x.reshape(-1, x.shape[-1]).float(), self._codes, self._scale, self._bias)
        return y.reshape(*x.shape[:-1], self._codes.shape[0]).to(x.dtype)


def table_oracle(table: StoredTable) -> nn.Module:
    """Return the stand-in for an int8 table."""
    scale = table.scale.float()
    if table.entry.kind == "embedding":
        return OracleEmbedding(table.codes, scale.unsqueeze(1))
    return OracleInt8Linear(table.codes, scale, table.bias)


@contextmanager
def rounded_tables(model: nn.Module, manifest: Manifest) -> Iterator[None]:
    """While the block runs, the float tables of `model` that the folder holds in int8 compute as if they were too.

    Raises FormatError when the model has no such table, or it cannot be rounded.
    """
    entries = tables_rounded_on_the_way_out(model, manifest)
    originals = {entry.name: _float_table(model, entry) for entry in entries}
    replace_by_oracle(model, {entry.name: _rounded(entry, originals[entry.name]) for entry in entries})
    try:
        yield
    finally:
        replace_by_oracle(model, originals)


def tables_rounded_on_the_way_out(model: nn.Module, manifest: Manifest) -> list[TableEntry]:
    """Return the int8 tables of a folder that the trained model has in floats."""
    modules = dict(model.named_modules())
    return [entry for entry in manifest.tables if not isinstance(modules.get(entry.name), ROUNDED)]


def _float_table(model: nn.Module, entry: TableEntry) -> nn.Module:
    modules = dict(model.named_modules())
    weight = getattr(modules.get(entry.name), "weight", None)
    if not isinstance(weight, Tensor) or tuple(weight.shape) != (entry.num_rows, entry.num_inputs):
        raise FormatError(f"{entry.name}: the trained model has no {entry.num_rows} x {entry.num_inputs} table there.")
    return modules[entry.name]


def _rounded(entry: TableEntry, module: nn.Module) -> nn.Module:
    try:
        codes, scale = table_codes(module.get_parameter("weight"), entry.bits)
    except ConversionError as error:
        raise FormatError(f"{entry.name}: {error}") from error
    bias = getattr(module, "bias", None)
    return table_oracle(StoredTable(entry, codes, scale, None if bias is None else bias.detach().float()))


def replace_by_oracle(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Put modules where `model` has layers of those names."""
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
