"""A token embedding that holds only packed rows and unpacks those asked for: BitEmbedding for inference.

    ids -> packed rows -> codes int8 [T, H] -> scale * codes, float32

The same product of a code and a scale as `BitEmbedding` in evaluation mode, so the outputs are equal bit for bit. The
float table never exists: a step unpacks H bits (ternary: 2 H) per token. There is no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitnet_train.kernels.words import repack, unpack_words
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import dequantize, select_scale


class PackedEmbedding(nn.Module):
    """Table look-up: token ids [..] -> float32 [.., H], over packed rows.

    Buffers: `words` int64 [P, V, 1, ceil(H / 64)] (see `kernels.words`; the bytes of `planes_v1`), `w_scale` float32
    of `weight_scheme.scale_shape(V, H)`.
    """

    words: Tensor
    w_scale: Tensor

    def __init__(self, words: Tensor, scale: Tensor, embedding_dim: int, weight_scheme: WeightScheme) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = words.shape[1], embedding_dim
        self.weight_scheme = weight_scheme
        self.register_buffer("words", words)
        self.register_buffer("w_scale", scale.float().contiguous())

    @classmethod
    def from_planes(
        cls, planes: Tensor, scale: Tensor, embedding_dim: int, weight_scheme: WeightScheme
    ) -> PackedEmbedding:
        """Layer from `planes_v1` uint8 [P, V, bytes] and a scale of scale_shape(V, H).

        Raises FormatError for damaged planes, ValueError when the scale does not fit them.
        """
        words = repack(planes, embedding_dim, embedding_dim, weight_scheme.code_set)
        shape = weight_scheme.scale_shape(planes.shape[1], embedding_dim)
        if tuple(scale.shape) != shape:
            raise ValueError(
                f"`scale` has shape {list(scale.shape)}, but the planes and the scheme need {list(shape)}."
            )
        return cls(words, scale, embedding_dim, weight_scheme)

    def codes(self) -> Tensor:
        """The codes of the whole table, int8 [V, H]."""
        return unpack_words(self.words, self.embedding_dim, self.weight_scheme.code_set)

    @torch.no_grad()
    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 or int32 [..], in range, to rows [.., H] in the dtype of the scale."""
        ids = token_ids.reshape(-1)
        codes = unpack_words(self.words.index_select(1, ids), self.embedding_dim, self.weight_scheme.code_set)
        rows = dequantize(codes, select_scale(self.w_scale, ids)).to(self.w_scale.dtype)
        return rows.reshape(*token_ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        """Sizes and scheme, for `print(model)`."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.weight_scheme.describe()}"
