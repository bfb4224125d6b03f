"""A linear layer that holds only packed weights and runs on the integer kernels: BitLinear for inference.

    x -> (codes, scale) per token -> integer product with the packed weight bits -> float32 rescale -> dtype of x

The same steps and roundings as `BitLinear` in evaluation mode, so the outputs are equal bit for bit; the contract is in
`kernels.reference`. With activation "none" there are no integers to count: the weight is unpacked once to float32 and
an ordinary product is used, which saves no memory. There is no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.formats.planes import unpack_planes
from bitnet_train.kernels.ops import PackedWeight, pack, packed_linear, unpack
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import dequantize


class PackedLinear(nn.Module):
    """Linear layer [.., K] -> [.., N] over packed weights.

    Buffers: `stream` uint8 [bytes], codes and scales as the kernel of `weight` reads them; `bias` float32 [N] or None.
    With activation "none" instead of the stream: `dense` float32 [N, K], not saved.
    """

    stream: Tensor | None
    bias: Tensor | None
    dense: Tensor | None

    def __init__(
        self,
        num_outputs: int,
        num_inputs: int,
        weight_scheme: WeightScheme,
        activation: ActivationScheme,
        bias: Tensor | None,
        packed: tuple[Tensor, PackedWeight] | None,
        dense: Tensor | None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = num_inputs, num_outputs
        self.weight_scheme, self.activation = weight_scheme, activation
        stream, self.weight = packed or (None, None)
        self.register_buffer("stream", stream)
        self.register_buffer("bias", None if bias is None else bias.float().contiguous())
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
        _require_shape("scale", scale, weight_scheme.scale_shape(num_outputs, num_inputs))
        if bias is not None:
            _require_shape("bias", bias, (num_outputs,))
        packed = dense = None
        if activation.name == "none":
            dense = dequantize(unpack_planes(planes, num_inputs, weight_scheme.code_set), scale.float())
        else:
            group_size = weight_scheme.inputs_per_scale(num_inputs)
            packed = pack(planes, scale.float(), num_inputs, group_size, weight_scheme.code_set, activation.name)
        return cls(num_outputs, num_inputs, weight_scheme, activation, bias, packed, dense)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x float [.., K] to [.., N] in the dtype of x; float32 inside, whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, self.in_features).float()
            y = self._product(rows)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def codes(self) -> Tensor:
        """The weight codes, int8 [N, K], as the kernel's stream holds them; not with activation "none"."""
        assert self.stream is not None, "a layer without integer activations keeps its dense weight only"
        assert self.weight is not None
        return unpack(self.stream, self.weight)[0]

    def _product(self, rows: Tensor) -> Tensor:
        if self.stream is None or self.weight is None:
            assert self.dense is not None
            return F.linear(rows, self.dense, self.bias)
        return packed_linear(rows.contiguous(), self.stream, self.bias, self.weight)

    def extra_repr(self) -> str:
        """Sizes and schemes, for `print(model)`."""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self.weight_scheme.describe()}, "
            f"activation={self.activation.name}"
        )


def _require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"`{name}` has shape {list(tensor.shape)}, but the planes and the scheme need {list(shape)}.")
