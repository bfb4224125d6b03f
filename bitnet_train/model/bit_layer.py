"""What every 1-bit layer shares: a latent float weight, its scale, and the quantiser between them and the forward.

    evaluation and export   codes, scale = quantized()           exact, kept until a parameter changes
    training                W_eff = effective_weight()           value and gradients from the surrogate

`BitLinear` multiplies by this weight, `BitEmbedding` looks rows up in it. Latent weights and scales are float32.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from bitnet_train.model.version_cache import VersionCache
from bitnet_train.quant.scheme import ActivationScheme, LayerKind, WeightScheme
from bitnet_train.quant.surrogate import Surrogate
from bitnet_train.quant.weight import absmean_scale, quantize, round_scale


class BitLayer(nn.Module):
    """Abstract: a quantised weight [N, K] without a forward.

    Parameters: `weight` float32 [N, K] (latent), `scale` float32 of `weight_scheme.scale_shape(N, K)` when it is
    learnable, else None, and `bias` where the subclass has one. Buffer `hardness`: 0-dim float32, not saved.
    """

    kind: ClassVar[LayerKind]
    hardness: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        num_rows: int,
        num_columns: int,
        *,
        weight_scheme: WeightScheme,
        activation: ActivationScheme,
        surrogate: Surrogate,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.weight_scheme, self.activation, self.surrogate = weight_scheme, activation, surrogate
        shape = weight_scheme.scale_shape(num_rows, num_columns)
        self.weight = nn.Parameter(torch.zeros(num_rows, num_columns, device=device))
        self.scale = nn.Parameter(torch.ones(shape, device=device)) if weight_scheme.learnable_scale else None
        self.register_buffer("hardness", torch.tensor(surrogate.hard, device=device), persistent=False)
        self._cache, self._scale_cache = VersionCache(), VersionCache()

    @torch.no_grad()
    def start_from(self, weight: Tensor) -> None:
        """Copy a float weight [N, K] into the latents; a learnable scale starts at its mean|W|.

        On the meta device there are no values: what is loaded later brings them. Raises ConversionError for an
        unstorable scale.
        """
        self.weight.copy_(weight)
        if self.scale is not None and not weight.is_meta:
            self.scale.copy_(absmean_scale(self.weight, self.weight_scheme))

    def latent(self) -> Tensor:
        """The float weight [N, K] that is quantised."""
        return self.weight

    def rounded_scale(self, latent: Tensor | None = None, *, checked: bool = False) -> Tensor:
        """The scale that the forward uses, float32 of scale_shape; differentiable when it is learnable.

        A fixed one is computed once a step, not once a micro-batch: it is kept until the latent weight changes.
        """
        if self.scale is not None:
            return round_scale(self.scale, self.weight_scheme)
        if not checked and (latent is None or latent is self.weight):
            return self._scale_cache.get(
                (self.weight,), lambda: absmean_scale(self.weight, self.weight_scheme, checked=False)
            )
        return absmean_scale(self.latent() if latent is None else latent, self.weight_scheme, checked=checked)

    def quantized(self, latent: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes int8 [N, K] and scale float32 of scale_shape: what evaluation computes with and export writes."""
        if latent is not None:
            return self._quantize(latent)
        watched = (self.weight,) if self.scale is None else (self.weight, self.scale)
        return self._cache.get(watched, lambda: self._quantize(self.latent()))

    @torch.no_grad()
    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.rounded_scale(latent, checked=True)
        return quantize(latent, scale, self.weight_scheme), scale

    def effective_weight(self, latent: Tensor | None = None) -> Tensor:
        """W_eff float32 [N, K] of the training forward, differentiable in the latent weight and a learnable scale."""
        latent = (self.latent() if latent is None else latent).float()
        return self.surrogate.weight(latent, self.rounded_scale(latent), self.weight_scheme, self.hardness)

    def train(self, mode: bool = True) -> Self:
        """Switch between the training and the evaluation forward; training forgets what was kept."""
        if mode:
            self._cache.clear()
            self._scale_cache.clear()
        return super().train(mode)
