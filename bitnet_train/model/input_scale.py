"""A trainable scale per input in front of a binary layer: the two-vector weight of OneBit (arXiv 2402.11295).

    y = h * (sign(W) (x * g)) + b        W [N, K], h [N, 1] = the layer's row scale, g [K] = `input_scale`

so the effective weight is sign(W) * (h g^T). The start is the paper's sign-value-independent decomposition: h g^T is
the best rank-1 approximation of |W|. Both vectors are non-negative (Perron and Frobenius), so this equals the rank-1
NMF that the authors' code computes. g is normalised to mean 1, hence h starts near mean|W| of its row. As in that
code, the latents keep their signs alone, +-0.01: the magnitudes live in the two vectors.

How ours differs: their layers end in a LayerNorm without parameters, which changes the pretrained function at the
start; here there is none. Their gradient of the sign is 1.001 - tanh(W)^2, which is 1 within 0.2 % while |W| < 0.03:
use `weight.estimator=identity`.

Not done: export. q, k and v have a g each, so g cannot be folded into the one norm before them, and no byte format of
ours has a scale per input. `require_no_input_scales` says so.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.training_only import TrainingOnly
from bitnet_train.quant.scheme import WeightScheme

START_MAGNITUDE = 0.01  # of the latents, as in the authors' start checkpoint
_POWER_STEPS = 30  # |W| has one dominant singular value: a few steps reach float32 precision

INPUT_SCALE_REFUSAL = (
    "A scale per input (`weight.input_scale=true`) exists in training only: no packed format holds it, and it does not "
    "fold into the norm before, which several layers share. Measure the model with `bitnet-train train`, or train one "
    "to pack with `weight.input_scale=false` and fine scales (`weight=binary_group64`)."
)


class InputScaledBitLinear(TrainingOnly, BitLinear):
    """BitLinear of x * g. Parameter `input_scale`: float32 [K], beside those of BitLinear."""

    refusal = INPUT_SCALE_REFUSAL
    own_parameters = ("input_scale",)

    def __init__(self, in_features: int, out_features: int, **options: Any) -> None:
        super().__init__(in_features, out_features, **options)
        self.input_scale = nn.Parameter(torch.ones(in_features, device=self.weight.device))

    @classmethod
    def from_bit_linear(cls, layer: BitLinear) -> Self:
        """Take over a binary layer with learnable row scales and decompose its latents, in place."""
        made = cls.taking_over(layer)
        made.decompose(layer.weight)
        return made

    @torch.no_grad()
    def decompose(self, weight_NK: Tensor) -> None:
        """Start sign, row scale and input scale from a float weight [N, K]; on the meta device nothing starts."""
        if weight_NK.is_meta:
            return
        assert self.scale is not None
        row_N, input_K = rank_one(weight_NK.abs())
        self.scale.copy_(row_N.unsqueeze(1))
        self.input_scale.copy_(input_K)
        self.weight.copy_(torch.where(weight_NK >= 0, START_MAGNITUDE, -START_MAGNITUDE))

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """x [.., K] to [.., N] in the dtype of BitLinear."""
        return super().forward(x * self.input_scale.to(x.dtype), latent)


def rank_one(magnitude_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Best rank-1 approximation of a non-negative matrix: a float32 [N], b float32 [K] with a b^T ~ it, mean(b) = 1.

    A matrix of zeros gives a = 0.
    """
    magnitude = magnitude_NK.detach().double()
    direction = magnitude.mean(dim=0)
    for _ in range(_POWER_STEPS):
        direction = magnitude.t() @ (magnitude @ direction)
        direction = direction / direction.norm().clamp_min(torch.finfo(torch.float64).tiny)
    mean = direction.mean()
    if not mean > 0:
        return magnitude.mean(dim=1).float(), torch.ones_like(direction).float()
    return (magnitude @ direction * mean).float(), (direction / mean).float()


def add_input_scales(model: nn.Module) -> None:
    """Give every BitLinear of a converted model a scale per input, in place.

    Raises ConversionError, before anything is changed, where a layer is not binary with learnable row scales.
    """
    layers = {name: layer for name, layer in bit_layers(model).items() if isinstance(layer, BitLinear)}
    for name, layer in layers.items():
        _require_decomposable(name, layer.weight_scheme)
    for name, layer in layers.items():
        model.set_submodule(name, InputScaledBitLinear.from_bit_linear(layer), strict=True)


def _require_decomposable(name: str, scheme: WeightScheme) -> None:
    if (scheme.code_set, scheme.granularity, scheme.learnable_scale) != ("binary", "row", True):
        kind = "learnable" if scheme.learnable_scale else "fixed"
        raise ConversionError(
            f"{name}: `weight.input_scale=true` needs binary codes of one plane and learnable row scales; it has "
            f"{kind} scales, {scheme.describe()}. Set `weight=binary_row weight.learnable_scale=true`, or "
            "`weight.input_scale=false`."
        )
