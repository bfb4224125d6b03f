"""Stand-ins for packed layers that compute by the reference, for a folder whose trained model is not at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.exporters.manifest import LayerEntry
from bitnet_train.kernels import reference
from bitnet_train.quant.activation import quantize_activation
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
            y = reference.linear(x_codes, x_scale, self._codes, self._scale, self._bias, group)
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


def oracle(entry: LayerEntry, codes: Tensor, scale: Tensor, bias: Tensor | None) -> nn.Module:
    """Return the stand-in for a packed layer."""
    if entry.kind == "embedding":
        return OracleEmbedding(codes, scale)
    return OracleLinear(entry, codes, scale, bias)


def replace_by_oracle(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Put the stand-ins where `model` has layers of those names."""
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
