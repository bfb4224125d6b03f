"""Quantised weights in the place of float ones, without a copy of the model: exchanged, measured, put back.

A layer computes with the float32 values scale * code, and its inputs are rounded as training rounds them: what
`convert` would give without any training, up to the rounding of float sums, or with scales fitted to what inputs are
worth, as a start by `init` has them. Only the weights that are exchanged at the
moment take memory of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import absmean_scale, dequantize, quantize


class InPlace:
    """Linear layers and token embedding of a model by name, each float or quantised at any moment."""

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        activation: ActivationScheme,
        importance: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """`importance` has E[x^2], float32 [K], of layers whose scales are fitted (`fit_scale`), not mean|W|."""
        self._layers, self._activation, self._importance = layers, activation, importance
        self._floats: dict[str, nn.Parameter] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._fitted: dict[tuple[str, WeightScheme], Tensor] = {}  # scales: a fit takes long, and they are small

    @torch.no_grad()
    def quantize(self, schemes: Mapping[str, WeightScheme]) -> None:
        """Give the named layers, which are float, weights of these schemes."""
        for name, scheme in schemes.items():
            module = self._layers[name]
            weight = module.get_parameter("weight")
            assert name not in self._floats, f"{name} is quantised already"
            self._floats[name] = weight
            module._parameters["weight"] = nn.Parameter(self._written(name, weight, scheme), requires_grad=False)
            if not isinstance(module, nn.Embedding):
                self._hooks[name] = module.register_forward_pre_hook(self._round_input)

    def put_back(self, names: Iterable[str] | None = None) -> None:
        """Give the named layers, or all that are quantised, the very parameters that they had."""
        for name in list(self._floats) if names is None else names:
            self._layers[name]._parameters["weight"] = self._floats.pop(name)
            if name in self._hooks:
                self._hooks.pop(name).remove()

    @torch.no_grad()
    def rounding_error(self, name: str, scheme: WeightScheme) -> float:
        """Return sum h (w - q)^2 / sum h w^2 of a layer in this scheme, h its importance or 1; it stays as it is."""
        weight = self._floats.get(name, self._layers[name].get_parameter("weight"))
        lost = (weight - self._written(name, weight, scheme)).float().square().sum(self._outputs(name))
        size = weight.float().square().sum(self._outputs(name))
        importance = self._importance.get(name, torch.ones_like(size))
        return float((importance * lost).sum() / (importance * size).sum().clamp(min=torch.finfo(torch.float32).tiny))

    def _round_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fake_quantize_activation(inputs[0], self._activation), *inputs[1:])

    def _outputs(self, name: str) -> int:
        """The axis of a layer's outputs: GPT-2's Conv1D has [K, N]."""
        return 1 if isinstance(self._layers[name], Conv1D) else 0

    def _written(self, name: str, weight: Tensor, scheme: WeightScheme) -> Tensor:
        """scale * code of a weight, in its own layout."""
        w_NK = weight.t().contiguous() if self._outputs(name) else weight
        scale = self._scale(name, w_NK, scheme)
        values = dequantize(quantize(w_NK, scale, scheme), scale).to(weight.dtype)
        return values.t().contiguous() if self._outputs(name) else values

    def _scale(self, name: str, w_NK: Tensor, scheme: WeightScheme) -> Tensor:
        importance, key = self._importance.get(name), (name, scheme)
        if importance is None:
            return absmean_scale(w_NK, scheme)
        if key not in self._fitted:
            self._fitted[key] = fit_scale(w_NK, scheme, importance)
        return self._fitted[key]
