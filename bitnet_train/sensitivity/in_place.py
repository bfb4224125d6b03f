"""Quantised weights in the place of float ones, without a copy of the model: exchanged, measured, put back.

A layer computes with the float32 values scale * code, and its inputs are rounded as training rounds them: what
`convert` would give without any training, up to the rounding of float sums. Only the weights that are exchanged at the
moment take memory of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import absmean_scale, dequantize, quantize


class InPlace:
    """Linear layers and token embedding of a model by name, each float or quantised at any moment."""

    def __init__(self, layers: Mapping[str, nn.Module], activation: ActivationScheme) -> None:
        self._layers, self._activation = layers, activation
        self._floats: dict[str, nn.Parameter] = {}
        self._hooks: dict[str, RemovableHandle] = {}

    @torch.no_grad()
    def quantize(self, schemes: Mapping[str, WeightScheme]) -> None:
        """Give the named layers, which are float, weights of these schemes."""
        for name, scheme in schemes.items():
            module = self._layers[name]
            weight = module.get_parameter("weight")
            assert name not in self._floats, f"{name} is quantised already"
            self._floats[name] = weight
            module._parameters["weight"] = nn.Parameter(_written(module, weight, scheme), requires_grad=False)
            if not isinstance(module, nn.Embedding):
                self._hooks[name] = module.register_forward_pre_hook(self._round_input)

    def put_back(self, names: Iterable[str] | None = None) -> None:
        """Give the named layers, or all that are quantised, the very parameters that they had."""
        for name in list(self._floats) if names is None else names:
            self._layers[name]._parameters["weight"] = self._floats.pop(name)
            if name in self._hooks:
                self._hooks.pop(name).remove()

    def _round_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fake_quantize_activation(inputs[0], self._activation), *inputs[1:])


def _written(module: nn.Module, weight: Tensor, scheme: WeightScheme) -> Tensor:
    """scale * code of a weight, in its own layout: GPT-2's Conv1D has [K, N]."""
    w_NK = weight.t().contiguous() if isinstance(module, Conv1D) else weight
    scale = absmean_scale(w_NK, scheme)
    values = dequantize(quantize(w_NK, scale, scheme), scale).to(weight.dtype)
    return values.t().contiguous() if isinstance(module, Conv1D) else values
