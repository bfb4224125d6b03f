"""A linear layer that holds only packed weights and runs on the popcount kernels: BitLinear for inference.

    x -> (codes, scale) per token -> integer product with the packed weight bits -> float32 rescale -> dtype of x

The same steps and roundings as `BitLinear` in evaluation mode, so the outputs are equal bit for bit; the contract is in
`kernels.reference`. With activation "none" there are no integers to count: the weight is unpacked once to float32 and
an ordinary product is used, which saves no memory. There is no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.kernels.ops import packed_linear, repack
from bitnet_train.kernels.words import unpack_words
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import dequantize


class PackedLinear(nn.Module):
    """Linear layer [.., K] -> [.., N] over packed weights.

    Buffers: `words` int64 [P, N, G, W] (see `kernels.words`), `w_scale` float32 of `weight_scheme.scale_shape(N, K)`,
    `bias` float32 [N] or None; `dense` float32 [N, K] only with activation "none", not saved.
    """

    words: Tensor
    w_scale: Tensor
    bias: Tensor | None
    dense: Tensor | None

    def __init__(
        self,
        words: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        num_inputs: int,
        weight_scheme: WeightScheme,
        activation: ActivationScheme,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = num_inputs, words.shape[1]
        self.weight_scheme, self.activation = weight_scheme, activation
        self.group_size = weight_scheme.inputs_per_scale(num_inputs)
        self.register_buffer("words", words)
        self.register_buffer("w_scale", scale.float().contiguous())
        self.register_buffer("bias", None if bias is None else bias.float().contiguous())
        dense = dequantize(self.codes(), self.w_scale) if activation.name == "none" else None
        self.register_buffer("dense", dense, persistent=False)

    @classmethod
    def from_planes(
        cls,
        planes: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        num_inputs: int,
        weight_scheme: WeightScheme,
        activation: ActivationScheme,
    ) -> PackedLinear:
        """Layer from `planes_v1` uint8 [P, N, bytes], a scale of scale_shape(N, K) and a bias [N].

        Raises FormatError for damaged planes, ValueError when scale or bias do not fit them.
        """
        num_outputs = planes.shape[1]
        words = repack(planes, num_inputs, weight_scheme.inputs_per_scale(num_inputs), weight_scheme.name)
        _require_shape("scale", scale, weight_scheme.scale_shape(num_outputs, num_inputs))
        if bias is not None:
            _require_shape("bias", bias, (num_outputs,))
        return cls(words, scale, bias, num_inputs, weight_scheme, activation)

    def codes(self) -> Tensor:
        """The weight codes, int8 [N, K]."""
        return unpack_words(self.words, self.group_size, self.weight_scheme.name)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x float [.., K] to [.., N] in the dtype of x; float32 inside, whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, self.in_features).float()
            y = self._integer_product(rows) if self.dense is None else F.linear(rows, self.dense, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def _integer_product(self, rows: Tensor) -> Tensor:
        codes, scale = quantize_activation(rows, self.activation)
        return packed_linear(
            codes.contiguous(),
            scale.contiguous(),
            self.words,
            self.w_scale,
            self.bias,
            self.in_features,
            self.group_size,
            self.weight_scheme.name,
            self.activation.name,
        )

    def extra_repr(self) -> str:
        """Sizes and schemes, for `print(model)`."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.weight_scheme.describe()}, "
            f"activation={self.activation.name}"
        )


def _require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"`{name}` has shape {list(tensor.shape)}, but the planes and the scheme need {list(shape)}.")
