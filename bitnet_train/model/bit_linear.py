"""A linear layer whose weights are +-1 (-1, 0, +1; +-1, +-3, ...) times a scale, trained through the quantiser.

    training     y = linear(Qa(x), W_eff) + b                    W_eff and its gradients from the surrogate, Qa with
                                                                identity gradient
    evaluation   acc[t,n,g] = sum over group g of x_codes * w_codes                            exact integers
                 y = (sum over g, in order, of w_scale[n,g] * acc[t,n,g]) * x_scale[t] + b     float32 steps;
                                                                    of several planes their sum

Evaluation is the contract that the packed kernels keep bit for bit: see `kernels.reference`; within `on_kernels` it
computes with them. Training computes the same value up to float32 rounding when the surrogate is hard. In evaluation
nothing is differentiable, autocast is off, and the codes are kept from call to call until a parameter changes
(`version_cache`).

The seed's layer `y = alpha (W_b . A_q) + beta` is this one with alpha = `scale` (learnable) and beta = `bias`.
Latent weights, scales and biases are float32. With activation "none" there are no integers:
y = linear(x, scale * codes) + b.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bitnet_train.errors import ConversionError
from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import reference
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.model.quantized_linear import Quantizers, quantized_linear
from bitnet_train.model.version_cache import VersionCache
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Surrogate
from bitnet_train.quant.weight import dequantize

_on_kernels: ContextVar[bool] = ContextVar("on_kernels", default=False)


class BitLinear(BitLayer):
    """Linear layer [.., K] -> [.., N] with quantised weights.

    Parameters: `weight` float32 [N, K] (latent), `bias` float32 [N] or None, `scale` float32 of
    `weight_scheme.scale_shape(N, K)` when it is learnable, else None. Buffer `hardness`: 0-dim float32, not saved.
    """

    kind = "linear"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        weight_scheme: WeightScheme,
        activation: ActivationScheme,
        surrogate: Surrogate,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            out_features,
            in_features,
            weight_scheme=weight_scheme,
            activation=activation,
            surrogate=surrogate,
            device=device,
        )
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features, device=device)) if bias else None
        self._packed_cache = VersionCache()

    @classmethod
    def from_linear(
        cls, linear: nn.Module, weight_scheme: WeightScheme, activation: ActivationScheme, surrogate: Surrogate
    ) -> BitLinear:
        """Copy of an `nn.Linear` or GPT-2 `Conv1D` (whose weight is [K, N]); a learnable scale starts at mean|W|.

        Raises ConversionError for another type, a group size that does not divide K, or an unstorable scale.
        """
        weight, bias = linear_parameters(linear)
        num_outputs, num_inputs = weight.shape
        layer = cls(
            num_inputs,
            num_outputs,
            bias=bias is not None,
            weight_scheme=weight_scheme,
            activation=activation,
            surrogate=surrogate,
            device=weight.device,
        )
        layer.start_from(weight)
        if bias is not None and layer.bias is not None:
            with torch.no_grad():
                layer.bias.copy_(bias)
        return layer.train(linear.training)

    @classmethod
    def taking_over(cls, layer: BitLinear) -> Self:
        """Make a layer of this class with the very parameters, schemes and mode of another."""
        made = cls(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            weight_scheme=layer.weight_scheme,
            activation=layer.activation,
            surrogate=layer.surrogate,
            device=layer.weight.device,
        )
        made.weight, made.scale, made.bias = layer.weight, layer.scale, layer.bias
        return made.train(layer.training)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """x [.., K] to [.., N] in the dtype of x (under autocast in training: of the matmul)."""
        if not self.training:
            return self.linear_from_codes(x, *self.quantized(latent))
        latent = (self.latent() if latent is None else latent).float()
        quantizers = Quantizers(self.weight_scheme, self.activation, self.surrogate)
        return quantized_linear(x, latent, self.rounded_scale(latent), self.bias, self.hardness, quantizers)

    @torch.no_grad()
    def linear_from_codes(self, x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        """The evaluation forward for given codes int8 [N, K] and scale; float32 inside, returned in the dtype of x."""
        if uses_kernels(x):
            watched = (codes, scale) if self.bias is None else (codes, scale, self.bias)
            return self._packed_cache.get(watched, lambda: self._packed(codes, scale))(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, self.in_features).float()
            bias = None if self.bias is None else self.bias.float()
            if self.activation.name == "none":
                y = F.linear(rows, dequantize(codes, scale), bias)
            else:
                x_codes, x_scale = quantize_activation(rows, self.activation)
                group = self.weight_scheme.inputs_per_scale(self.in_features)
                y = reference.linear(x_codes, x_scale, codes, scale, bias, group, self.weight_scheme.planes)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def _packed(self, codes: Tensor, scale: Tensor) -> PackedLinear:
        planes = pack_planes(codes, self.weight_scheme.code_set)
        return PackedLinear.from_planes(planes, scale, self.bias, self.in_features, self.weight_scheme, self.activation)

    def train(self, mode: bool = True) -> Self:
        """Switch between the training and the evaluation forward; training forgets what was kept."""
        if mode:
            self._packed_cache.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        """Sizes and schemes, for `print(model)`."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.weight_scheme.describe()}, "
            f"activation={self.activation.name}, surrogate={self.surrogate.name}"
        )


@contextmanager
def on_kernels() -> Iterator[None]:
    """Let BitLinear layers in evaluation mode compute with the compiled kernels: the same bits, many times as fast.

    Without this they are the oracle that kernels are proven against, in plain torch. On the CPU; elsewhere nothing
    changes.
    """
    token = _on_kernels.set(True)
    try:
        yield
    finally:
        _on_kernels.reset(token)


def uses_kernels(x: Tensor) -> bool:
    """Whether a layer in evaluation mode is to compute `x` with the compiled kernels."""
    return _on_kernels.get() and x.device.type == "cpu"


def linear_parameters(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight [N, K] (a view, detached) and bias [N] of an `nn.Linear` or `Conv1D`; ConversionError for other types."""
    if isinstance(linear, nn.Linear):
        weight = linear.weight.detach()
    elif isinstance(linear, Conv1D):
        weight = linear.weight.detach().t()
    else:
        raise ConversionError(f"{type(linear).__name__} cannot become a BitLinear. Allowed: nn.Linear, GPT-2's Conv1D.")
    return weight, None if linear.bias is None else linear.bias.detach()


def clean_name(name: str) -> str:
    """A module's name as in the unadapted model: without PEFT's `base_model.model.` and `.base_layer`."""
    return name.removeprefix("base_model.model.").removesuffix(".base_layer")


def bit_layers(model: nn.Module) -> dict[str, BitLayer]:
    """Every 1-bit layer by its clean name, in model order; the names are the same before, during and after LoRA."""
    return {clean_name(name): module for name, module in model.named_modules() if isinstance(module, BitLayer)}


def set_training(model: nn.Module, activation: ActivationScheme, surrogate: Surrogate) -> None:
    """Give every 1-bit layer this estimator, and every linear one these activations; weights and scales stay."""
    for layer in bit_layers(model).values():
        layer.surrogate = surrogate
        if layer.kind == "linear":
            layer.activation = activation
    set_hardness(model, surrogate.hard)


def set_hardness(model: nn.Module | Iterable[BitLayer], value: float | Tensor) -> None:
    """Give every 1-bit layer this hardness (see `quant.surrogate`), in place on its own device."""
    layers: Any = bit_layers(model).values() if isinstance(model, nn.Module) else model
    for layer in layers:
        if isinstance(value, Tensor):
            layer.hardness.copy_(value)
        else:
            layer.hardness.fill_(value)
