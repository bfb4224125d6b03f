"""Scales that fit the codes best: alternating least squares of codes and scale.

    minimise over s and c   sum_k h_k (w_k - s c_k)^2         over the tensor, row or group k runs through
    given s                 c = codes(w / s)                  the nearest code, whatever h is
    given c                 s = sum_k h_k w_k c_k / sum_k h_k c_k^2

h_k is the second moment of input k, E[x_k^2], or 1. Binary codes do not depend on s, so one round is exact:
s = sum h|w| / sum h. With ternary codes and with several planes rounds repeat until nothing changes; each lowers the
error (arXiv 1605.04711 solves the same problem by thresholds). Correlations between inputs are left out here:
`error_feedback` uses them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import absmean_scale, expand_scale, float_codes, round_scale

_MOST_ROUNDS = 20


@torch.no_grad()
def fit_scale(weight_NK: Tensor, scheme: WeightScheme, importance_K: Tensor | None = None) -> Tensor:
    """Return the scale float32 of `scheme.scale_shape(N, K)` for a float weight and h float [K], rounded as stored."""
    weight = weight_NK.detach().float()
    importance = torch.ones_like(weight[0]) if importance_K is None else importance_K.to(weight)
    importance = importance.clamp(min=float(importance.mean()) * 1e-6)  # an input that is always 0 must not divide 0/0
    scale = absmean_scale(weight, scheme)
    for _ in range(1 if scheme.code_set == "binary" else _MOST_ROUNDS):
        codes = float_codes(weight, expand_scale(scale, *weight.shape), scheme)
        above = _group_sums(importance * weight * codes, scale.shape)
        below = _group_sums(importance * codes * codes, scale.shape)
        fitted = round_scale(torch.where(below > 0, above / below.clamp(min=1e-30), scale), scheme)
        if torch.equal(fitted, scale):
            break
        scale = fitted
    return scale


def _group_sums(value_NK: Tensor, shape: torch.Size) -> Tensor:
    """Sum [N, K] over what one scale covers."""
    if shape == (1, 1):
        return value_NK.sum().reshape(1, 1)
    return value_NK.reshape(*shape, -1).sum(dim=-1)
