"""The token embedding and the head as int8 tables, for inference: `quant.int8_table` says which numbers they hold.

    Int8Embedding   ids -> scale * codes, float32
    Int8Linear      x -> 16-bit codes per token -> exact integers -> float32 rescale (+ bias)

A tied pair shares one stream of codes: build the head with `Int8Linear.of(embedding, bias)`. There is no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitnet_train.errors import KernelError
from bitnet_train.kernels.int8_ops import int8_linear, int8_rows, pack_int8, unpack_int8


class Int8Table(nn.Module):
    """Abstract: V rows of K codes with a scale each, without a forward.

    Buffers: `stream` int8 [quads, blocks, 4, 64] (`kernels.int8_ops`), `w_scale` float32 [V].
    """

    stream: Tensor
    w_scale: Tensor

    def __init__(self, stream: Tensor, scale: Tensor, num_inputs: int) -> None:
        super().__init__()
        self.num_rows, self.num_inputs = scale.shape[0], num_inputs
        self.register_buffer("stream", stream)
        self.register_buffer("w_scale", scale.float().contiguous())

    def codes(self) -> Tensor:
        """The codes of the whole table, int8 [V, K]."""
        return unpack_int8(self.stream, self.num_rows, self.num_inputs)


class Int8Embedding(Int8Table):
    """Table look-up: token ids [..] -> float32 [.., K]."""

    @classmethod
    def from_codes(cls, codes: Tensor, scale: Tensor) -> Int8Embedding:
        """Table from codes int8 [V, K] and scale float16 or float32 [V]; ValueError when they do not fit together."""
        return cls(_packed(codes, scale), scale, codes.shape[1])

    @torch.no_grad()
    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids int64 or int32 [..], in range, to rows [.., K]."""
        rows = int8_rows(token_ids.reshape(-1), self.stream, self.w_scale, self.num_inputs)
        return rows.reshape(*token_ids.shape, self.num_inputs)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{self.num_rows}, {self.num_inputs}, int8 per row"


class Int8Linear(Int8Table):
    """Linear layer [.., K] -> [.., V]. Besides the table: `bias` float32 [V] or None."""

    bias: Tensor | None

    def __init__(self, stream: Tensor, scale: Tensor, num_inputs: int, bias: Tensor | None) -> None:
        super().__init__(stream, scale, num_inputs)
        self.in_features, self.out_features = num_inputs, self.num_rows
        if bias is not None and tuple(bias.shape) != (self.num_rows,):
            raise ValueError(f"`bias` has shape {list(bias.shape)}, but the table has {self.num_rows} rows.")
        self.register_buffer("bias", None if bias is None else bias.float().contiguous())

    @classmethod
    def from_codes(cls, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Int8Linear:
        """Layer from codes int8 [V, K], scale float16 or float32 [V] and bias [V]; ValueError when they do not fit."""
        return cls(_packed(codes, scale), scale, codes.shape[1], bias)

    @classmethod
    def of(cls, table: Int8Table, bias: Tensor | None) -> Int8Linear:
        """The head of a tied pair: the same memory, held once."""
        head = cls(table.stream, table.w_scale, table.num_inputs, bias)
        head.w_scale = table.w_scale
        return head

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x float [.., K] to [.., V] in the dtype of x; float32 inside, whatever autocast says."""
        rows = x.reshape(-1, self.in_features).float().contiguous()
        y = int8_linear(rows, self.stream, self.w_scale, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, int8 per row, inputs int16"


def _packed(codes: Tensor, scale: Tensor) -> Tensor:
    if tuple(scale.shape) != tuple(codes.shape[:1]):
        raise ValueError(f"`scale` has shape {list(scale.shape)}, but the codes are {list(codes.shape)}.")
    try:
        return pack_int8(codes)
    except KernelError as error:
        raise ValueError(str(error)) from error
