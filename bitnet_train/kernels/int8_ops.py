"""The torch operator over the int8 table: `bitnet_train::int8_linear`, equal to `reference_int8` bit for bit.

The codes lie as the kernels read them, four rows together and 64 inputs of each in turn (csrc/int8/int8_table.h):

    stream int8 [quads, blocks, 4, 64], row n = stream[n // 4, :, n % 4, :], quads = ceil(V / 4), blocks = ceil(K / 64)

Padding is 0. One stream serves the head and the embedding: `int8_rows` takes rows out of it. Works under
`torch.compile` and with fake tensors, on any device (the compiled kernels on the CPU, the reference elsewhere), and is
not differentiable.

Shapes: T tokens, V rows of the table, K inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.kernels import reference_int8
from bitnet_train.kernels.isa import REFERENCE, backend, core

__all__ = ["BLOCK", "QUAD_ROWS", "int8_linear", "int8_rows", "pack_int8", "unpack_int8"]

QUAD_ROWS = 4
"""Rows that lie together."""
BLOCK = 64
"""Inputs of a row that lie together."""


def pack_int8(codes: Tensor) -> Tensor:
    """Rearrange codes int8 [V, K] into a stream int8 [ceil(V / 4), ceil(K / 64), 4, 64]; a copy.

    Raises KernelError for another dtype, or an empty table.
    """
    if codes.dtype != torch.int8 or codes.ndim != 2 or 0 in codes.shape:
        raise KernelError(
            f"An int8 table needs codes int8 [rows, inputs], neither of them 0; got {_describe(codes)}. "
            "Make them with `quant.int8_table.quantize_table`."
        )
    num_rows, num_inputs = codes.shape
    padded = F.pad(codes, (0, -num_inputs % BLOCK, 0, -num_rows % QUAD_ROWS))
    return padded.unflatten(0, (-1, QUAD_ROWS)).unflatten(2, (-1, BLOCK)).transpose(1, 2).contiguous()


def unpack_int8(stream: Tensor, num_rows: int, num_inputs: int) -> Tensor:
    """Return the codes int8 [V, K] of a stream: the inverse of `pack_int8`."""
    _check_stream(stream, num_rows, num_inputs)
    return stream.transpose(1, 2).flatten(2).flatten(0, 1)[:num_rows, :num_inputs].contiguous()


def int8_rows(token_ids: Tensor, stream: Tensor, scale: Tensor, num_inputs: int) -> Tensor:
    """Return rows float32 [T, K] = scale * codes for token ids int64 or int32 [T], each below V.

    Raises KernelError for a stream that does not fit, IndexError for a token id that is out of range.
    """
    _check_stream(stream, scale.shape[0], num_inputs)
    factors = F.embedding(token_ids, scale.unsqueeze(1))  # refuses ids that the padding of the stream would answer
    codes = stream[token_ids // QUAD_ROWS, :, token_ids % QUAD_ROWS].flatten(1)[:, :num_inputs]
    return codes.float() * factors


def int8_linear(x: Tensor, stream: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Return y float32 [T, V] for x float32 [T, K], equal to `reference_int8.int8_linear` bit for bit.

    stream int8 [quads, blocks, 4, 64] from `pack_int8`, scale float32 [V], bias float32 [V] or None, all contiguous and
    on one device. Uses at most `torch.get_num_threads()` threads; the result does not depend on their number.

    Raises KernelError for any other shape, dtype or stride.
    """
    return torch.ops.bitnet_train.int8_linear(x, stream, scale, bias)


def _int8_linear(x: Tensor, stream: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    _check(x, stream, scale, bias)
    isa = backend()
    if core is None or isa == REFERENCE or x.device.type != "cpu":
        codes = unpack_int8(stream, scale.shape[0], x.shape[1])
        return reference_int8.int8_linear(x.detach(), codes, scale.detach(), None if bias is None else bias.detach())
    out = torch.empty(x.shape[0], scale.shape[0])
    core.int8_linear(
        isa, x.detach().numpy(), stream.numpy(), scale.detach().numpy(), out.numpy(), torch.get_num_threads()
    )
    return out if bias is None else out.add_(bias.detach())


def _fake_int8_linear(x: Tensor, stream: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    _check(x, stream, scale, bias)
    return x.new_empty(x.shape[0], scale.shape[0])


def _check(x: Tensor, stream: Tensor, scale: Tensor, bias: Tensor | None) -> None:
    if x.ndim != 2 or x.dtype != torch.float32 or x.shape[1] == 0 or not x.is_contiguous():
        raise KernelError(f"`x` must be contiguous float32 [tokens, inputs]; got {_describe(x)}.")
    if scale.ndim != 1:
        raise KernelError(f"`scale` must be float32 [rows]; got {_describe(scale)}.")
    _check_stream(stream, scale.shape[0], x.shape[1])
    for name, tensor in (("scale", scale), ("bias", bias)):
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tensor.shape != scale.shape or not tensor.is_contiguous():
            raise KernelError(f"`{name}` must be contiguous float32 [{scale.shape[0]}]; got {_describe(tensor)}.")
    devices = {tensor.device for tensor in (x, stream, scale, bias) if tensor is not None}
    if len(devices) > 1:
        raise KernelError(f"All tensors must be on one device, not on {', '.join(sorted(map(str, devices)))}.")


def _check_stream(stream: Tensor, num_rows: int, num_inputs: int) -> None:
    shape = (-(-num_rows // QUAD_ROWS), -(-num_inputs // BLOCK), QUAD_ROWS, BLOCK)
    if stream.dtype != torch.int8 or tuple(stream.shape) != shape or not stream.is_contiguous() or num_rows == 0:
        raise KernelError(
            f"`stream` of {num_rows} rows and {num_inputs} inputs must be contiguous int8 {list(shape)}; got "
            f"{_describe(stream)}. Make it with `pack_int8`."
        )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} with strides {list(tensor.stride())}"


_LIBRARY = torch.library.Library("bitnet_train", "FRAGMENT")
_LIBRARY.define(
    "int8_linear(Tensor x, Tensor stream, Tensor scale, Tensor? bias) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)
_LIBRARY.impl("int8_linear", _int8_linear, "CompositeExplicitAutograd")
torch.library.register_fake("bitnet_train::int8_linear", _fake_int8_linear, lib=_LIBRARY)
