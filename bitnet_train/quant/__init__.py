"""Numbers: how a float tensor becomes integer codes and float32 scales, and how gradients pass through that step.

One law holds everywhere: `w ~ scale * codes` and `x ~ scale * codes`. Only torch is needed here; nothing in this
package knows about modules, bytes or files.
"""

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
