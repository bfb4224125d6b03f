"""Numbers: how a float tensor becomes integer codes and float32 scales, and how gradients pass through that step.

One law holds everywhere: `w ~ scale * codes` and `x ~ scale * codes`. Only torch is needed here, and `scheme` does
without it; nothing in this package knows about modules, bytes or files. Names arrive on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitnet_train.quant.activation import fake_quantize_activation, quantize_activation
    from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, WEIGHT_SCHEMES, ActivationScheme, WeightScheme
    from bitnet_train.quant.surrogate import SURROGATES, Clipped, Identity, Surrogate, Tanh
    from bitnet_train.quant.weight import absmean_scale, dequantize, expand_scale, quantize, round_scale

__all__ = [
    "ACTIVATION_SCHEMES",
    "SURROGATES",
    "WEIGHT_SCHEMES",
    "ActivationScheme",
    "Clipped",
    "Identity",
    "Surrogate",
    "Tanh",
    "WeightScheme",
    "absmean_scale",
    "dequantize",
    "expand_scale",
    "fake_quantize_activation",
    "quantize",
    "quantize_activation",
    "round_scale",
]

_HOMES = {
    "activation": ("fake_quantize_activation", "quantize_activation"),
    "scheme": ("ACTIVATION_SCHEMES", "WEIGHT_SCHEMES", "ActivationScheme", "WeightScheme"),
    "surrogate": ("SURROGATES", "Clipped", "Identity", "Surrogate", "Tanh"),
    "weight": ("absmean_scale", "dequantize", "expand_scale", "quantize", "round_scale"),
}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}.")
