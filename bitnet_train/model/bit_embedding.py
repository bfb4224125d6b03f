"""A token embedding whose table is +-1 (or -1, 0, +1) times a scale, trained through the quantiser.

    training     y = W_eff[ids]                  W_eff and its gradients from the surrogate
    evaluation   y = scale[ids] * codes[ids]     float32, exact: a code only sets the sign, or makes it 0

A look-up has no products and no activations to quantise: a 1-bit table saves memory, not time. Training quantises only
the rows asked for, or the whole table V where a batch has more tokens than that; only a fixed scale per tensor, which
is the mean over the table, needs all of it every step. As in `nn.Embedding`, the row of `padding_idx` gets no gradient;
otherwise it is a row like any other, so a padding row of zeros becomes a constant, unless a file gave it the
learnable scale 0 (see `quant.weight`).

Subclasses of `nn.Embedding` are refused: they do more than look up (Gemma's multiplies by sqrt(H)), which a table
alone would drop silently.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Surrogate
from bitnet_train.quant.weight import absmean_scale, dequantize, round_scale, select_scale


class BitEmbedding(BitLayer):
    """Table look-up: token ids [..] -> float32 [.., H], with a quantised table of V rows.

    Parameters: `weight` float32 [V, H] (latent), `scale` float32 of `weight_scheme.scale_shape(V, H)` when it is
    learnable, else None. Buffer `hardness`: 0-dim float32, not saved.
    """

    kind = "embedding"

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None,
        weight_scheme: WeightScheme,
        surrogate: Surrogate,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            weight_scheme=weight_scheme,
            activation=ActivationScheme("none"),
            surrogate=surrogate,
            device=device,
        )
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.bias = None

    @classmethod
    def from_embedding(cls, embedding: nn.Module, weight_scheme: WeightScheme, surrogate: Surrogate) -> BitEmbedding:
        """Copy of an `nn.Embedding`; a learnable scale starts at mean|W|.

        Raises ConversionError for another type or a subclass, for `max_norm`, sparse or frequency-scaled gradients, a
        group size that does not divide H, or an unstorable scale.
        """
        weight = embedding_weight(embedding)
        assert isinstance(embedding, nn.Embedding)
        layer = cls(
            *weight.shape,
            padding_idx=embedding.padding_idx,
            weight_scheme=weight_scheme,
            surrogate=surrogate,
            device=weight.device,
        )
        layer.start_from(weight)
        return layer.train(embedding.training)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 or int32 [..], in range, to rows [.., H] in the dtype of the latents."""
        ids = token_ids.reshape(-1)
        rows = self._effective_rows(ids) if self.training else self._rows_from_codes(ids)
        return rows.reshape(*token_ids.shape, self.embedding_dim).to(self.weight.dtype)

    @torch.no_grad()
    def _rows_from_codes(self, ids: Tensor) -> Tensor:
        codes, scale = self.quantized()
        return dequantize(codes.index_select(0, ids), select_scale(scale, ids))

    def _effective_rows(self, ids: Tensor) -> Tensor:
        """Rows of W_eff, float32 [T, H], by the cheaper of two ways to the same values and gradients."""
        if ids.numel() >= self.num_embeddings:
            return F.embedding(ids, self.effective_weight(), self.padding_idx)
        latent = self.weight.index_select(0, ids).float()
        scale, numel = self._row_scales(ids, latent), self.weight.numel()
        rows = self.surrogate.weight(latent, scale, self.weight_scheme, self.hardness, numel=numel)
        if self.padding_idx is None:
            return rows
        return torch.where((ids == self.padding_idx).unsqueeze(-1), rows.detach(), rows)

    def _row_scales(self, ids: Tensor, latent: Tensor) -> Tensor:
        """The scale of these rows: (1, 1), (T, 1) or (T, G)."""
        if self.weight_scheme.granularity == "tensor":
            return self.rounded_scale()
        if self.scale is not None:
            return round_scale(select_scale(self.scale, ids), self.weight_scheme)
        return absmean_scale(latent, self.weight_scheme, checked=False)

    def extra_repr(self) -> str:
        """Sizes and schemes, for `print(model)`."""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}, "
            f"{self.weight_scheme.describe()}, surrogate={self.surrogate.name}"
        )


def embedding_weight(embedding: nn.Module) -> Tensor:
    """Weight [V, H] (a view, detached) of a plain `nn.Embedding`; ConversionError for anything that does more."""
    name = type(embedding).__name__
    if type(embedding) is not nn.Embedding:
        raise ConversionError(
            f"{name} cannot become a BitEmbedding: only nn.Embedding itself can, because a subclass may do more than "
            "look a row up (Gemma's scales it). Leave `embedding` out of `model.roles`."
        )
    if embedding.max_norm is not None or embedding.scale_grad_by_freq or embedding.sparse:
        raise ConversionError(
            f"{name} cannot become a BitEmbedding with max_norm={embedding.max_norm}, "
            f"scale_grad_by_freq={embedding.scale_grad_by_freq}, sparse={embedding.sparse}: its rows or gradients "
            "would change. Leave `embedding` out of `model.roles`."
        )
    return embedding.weight.detach()
