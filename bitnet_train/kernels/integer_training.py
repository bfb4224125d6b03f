"""The integer products of a training step on the compiled kernels, equal to `reference_training` bit for bit.

    packed = pack_latent(latent, scale, weight, activation)     once a step: codes for y, and transposed for dx
    y = forward_product(x_codes, x_scale, packed, bias)         the bits of evaluation (`reference.linear`)
    dx = input_gradient(dy, packed)                             dy rounded per token, a 1-bit or an int8 product
    dw = weight_gradient(dy, x_codes, x_scale)                  dy rounded per output in blocks of 128 tokens
    y = int8_product(x_codes, x_scale, pack_int8_weight(...))   both sides int8: a teacher in W8A8

x_codes and x_scale are those of `quant.activation`; layers with one input share them, and they are all that dW needs of
it. Everything is float32 on the CPU; without the extension, or with BITNET_TRAIN_ISA=reference, the oracle computes it.
At most `torch.get_num_threads()` threads; no result depends on their number. Nothing here has a gradient of its own.

Raises KernelError for other shapes and dtypes, for sums that could overflow int32 and for a weight that is not finite;
a gradient that is not finite gives NaN (see the oracle), which the trainer stops at.

Shapes: T tokens, N outputs, K inputs, G scale groups per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.kernels import reference, reference_training
from bitnet_train.kernels.isa import REFERENCE, backend, core
from bitnet_train.kernels.ops import ACTIVATIONS, PackedWeight
from bitnet_train.kernels.reference_training import check_groups, check_int8_inputs
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import quantize

__all__ = [
    "Int8Weight",
    "PackedLatent",
    "forward_product",
    "input_gradient",
    "int8_product",
    "pack_int8_weight",
    "pack_latent",
    "weight_gradient",
]


@dataclass(frozen=True)
class PackedLatent:
    """The codes of a latent weight as the products of one step read them; the weight has changed by the next.

    `streams` or `codes`: the latter where the oracle multiplies.
    """

    num_outputs: int
    num_inputs: int
    scale: Tensor
    """float32 [N, G] or [1, 1]."""
    planes: int
    streams: _Streams | None
    codes: Tensor | None
    """int8 [N, K]."""


@dataclass(frozen=True)
class _Streams:
    forward: np.ndarray
    weight: PackedWeight
    transposed: np.ndarray
    """The signs, of a +-1 weight with one scale a row packed `for_backward`; else empty."""
    transposed_kernel: str
    int8: Any
    """The codes of any other weight packed `for_backward`, else None."""


@dataclass(frozen=True)
class Int8Weight:
    """An int8 weight as `int8_product` reads it: made once. `packed` or `codes`, as above."""

    num_outputs: int
    num_inputs: int
    scale: Tensor
    """float32 [N]."""
    packed: Any
    codes: Tensor | None
    """int8 [N, K]."""


@torch.no_grad()
def pack_latent(
    latent: Tensor, scale: Tensor, weight: WeightScheme, activation: ActivationScheme, *, for_backward: bool = True
) -> PackedLatent:
    """Pack latent float32 [N, K] with scale float32 [N, G] or [1, 1], G as `weight` says.

    Without `for_backward` only `forward_product` takes the result, in less time.
    """
    _check("latent", latent, torch.float32, (None, None))
    num_outputs, num_inputs = latent.shape
    if scale.shape != (1, 1):
        _check("scale", scale, torch.float32, (num_outputs, None))
    check_groups(num_inputs, scale.shape[1])
    assert num_outputs > 0, "a weight has outputs"
    _check_finite("scale", scale)
    compiled = _core("Int8Transposed")
    if compiled is None or activation.name not in ACTIVATIONS:
        _check_finite("latent", latent)
        return PackedLatent(num_outputs, num_inputs, scale, weight.planes, None, quantize(latent, scale, weight))
    if for_backward and scale.shape[1] > 1:
        check_int8_inputs(num_outputs)
    words = weight.code_set, activation.name, for_backward, torch.get_num_threads()
    row, *packed = compiled.pack_latent(_array(latent), _array(scale), *words)
    if row >= 0:
        raise _not_finite("latent", latent, row)
    forward, kernel, half, *transposed = packed
    group_size = num_inputs // scale.shape[1]
    described = PackedWeight(kernel, num_outputs, num_inputs, group_size, weight.code_set, activation.name, half)
    return PackedLatent(num_outputs, num_inputs, scale, weight.planes, _Streams(forward, described, *transposed), None)


@torch.no_grad()
def forward_product(x_codes: Tensor, x_scale: Tensor, weight: PackedLatent, bias: Tensor | None) -> Tensor:
    """y float32 [T, N] of x_codes int8 [T, K], x_scale float32 [T, 1], bias float32 [N] or None.

    The codes must be those of the activation scheme that `weight` was packed for.
    """
    _check_tokens(x_codes, x_scale, weight.num_inputs)
    _check_bias(bias, weight.num_outputs)
    streams = weight.streams
    if streams is None:
        assert weight.codes is not None
        group_size = weight.num_inputs // weight.scale.shape[1]
        return reference.linear(x_codes, x_scale, weight.codes, weight.scale, bias, group_size, weight.planes)
    y = torch.empty(x_codes.shape[0], weight.num_outputs)
    arrays = streams.forward, _array(x_codes), _array(x_scale), None if bias is None else _array(bias), y.numpy()
    _needed_core().packed_linear_codes(streams.weight.kernel, streams.weight.spec, *arrays, torch.get_num_threads())
    return y


@torch.no_grad()
def input_gradient(dy: Tensor, weight: PackedLatent) -> Tensor:
    """dx float32 [T, K] of dy float32 [T, N]."""
    _check("dy", dy, torch.float32, (None, weight.num_outputs))
    streams = weight.streams
    if streams is None:
        assert weight.codes is not None
        return reference_training.input_gradient(dy, weight.codes, weight.scale, weight.planes)
    dx = torch.empty(dy.shape[0], weight.num_inputs)
    threads = torch.get_num_threads()
    if streams.int8 is not None:
        streams.int8.input_gradient(_array(dy), dx.numpy(), threads)
        return dx
    assert streams.transposed.size > 0, "a weight packed `for_backward`"
    arrays = streams.transposed, _array(weight.scale.expand(weight.num_outputs, 1).reshape(-1)), _array(dy), dx.numpy()
    _needed_core().input_gradient(streams.transposed_kernel, *arrays, threads)
    return dx


@torch.no_grad()
def weight_gradient(dy: Tensor, x_codes: Tensor, x_scale: Tensor) -> Tensor:
    """dW float32 [N, K] of dy float32 [T, N], x_codes int8 [T, K], x_scale float32 [T, 1]."""
    _check("dy", dy, torch.float32, (None, None))
    _check_tokens(x_codes, x_scale, None)
    _check("x_codes", x_codes, torch.int8, (dy.shape[0], None))
    compiled = _core("int8_weight_gradient")
    if compiled is None:
        return reference_training.weight_gradient(dy, x_codes, x_scale)
    dw = torch.empty(dy.shape[1], x_codes.shape[1])
    arrays = _array(dy), _array(x_codes), _array(x_scale), dw.numpy()
    compiled.int8_weight_gradient(*arrays, torch.get_num_threads())
    return dw


@torch.no_grad()
def pack_int8_weight(codes: Tensor, scale: Tensor) -> Int8Weight:
    """Arrange codes int8 [N, K] with scale float32 [N] for `int8_product`."""
    _check("codes", codes, torch.int8, (None, None))
    num_outputs, num_inputs = codes.shape
    _check("scale", scale, torch.float32, (num_outputs,))
    check_int8_inputs(num_inputs)
    compiled = _core("Int8Weight")
    if compiled is None:
        return Int8Weight(num_outputs, num_inputs, scale, None, codes)
    packed = compiled.Int8Weight(_array(codes), _array(scale), torch.get_num_threads())
    return Int8Weight(num_outputs, num_inputs, scale, packed, None)


@torch.no_grad()
def int8_product(x_codes: Tensor, x_scale: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """y float32 [T, N] of x_codes int8 [T, K], x_scale float32 [T, 1], bias float32 [N] or None."""
    _check_tokens(x_codes, x_scale, weight.num_inputs)
    _check_bias(bias, weight.num_outputs)
    if weight.packed is None:
        assert weight.codes is not None
        return reference_training.int8_product(x_codes, x_scale, weight.codes, weight.scale, bias)
    y = torch.empty(x_codes.shape[0], weight.num_outputs)
    arrays = _array(x_codes), _array(x_scale), None if bias is None else _array(bias), y.numpy()
    weight.packed.multiply(*arrays, torch.get_num_threads())
    return y


def _check_tokens(x_codes: Tensor, x_scale: Tensor, num_inputs: int | None) -> None:
    _check("x_codes", x_codes, torch.int8, (None, num_inputs))
    _check("x_scale", x_scale, torch.float32, (x_codes.shape[0], 1))


def _check_bias(bias: Tensor | None, num_outputs: int) -> None:
    if bias is not None:
        _check("bias", bias, torch.float32, (num_outputs,))


def _check_finite(name: str, weight: Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise _not_finite(name, weight, int(torch.isfinite(weight).all(dim=1).logical_not().nonzero()[0]))


def _not_finite(name: str, weight: Tensor, row: int) -> KernelError:
    return KernelError(
        f"Row {row} of `{name}` {list(weight.shape)} has a value that is not finite: its signs mean nothing. "
        "Lower `optimizer.lr`, or go on from a checkpoint before it."
    )


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise KernelError unless the tensor is on the CPU, of this dtype and of this shape (None: any)."""
    fits = len(shape) == tensor.ndim and all(
        want is None or size == want for want, size in zip(shape, tensor.shape, strict=True)
    )
    if fits and tensor.dtype == dtype and tensor.device.type == "cpu":
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    short = {kind: str(kind).removeprefix("torch.") for kind in (dtype, tensor.dtype)}
    raise KernelError(
        f"`{name}` must be {short[dtype]} [{wanted}] on the CPU; got {short[tensor.dtype]} {list(tensor.shape)} on "
        f"{tensor.device}."
    )


def _core(function: str) -> Any:
    """The compiled module where it is in use and has `function` (one of an earlier version has not), else None."""
    return core if core is not None and hasattr(core, function) and backend() != REFERENCE else None


def _needed_core() -> Any:
    assert core is not None, "streams are made by the compiled module"
    return core


def _array(tensor: Tensor) -> np.ndarray:
    return torch.from_dlpack(tensor.detach().contiguous()).numpy()  # as in `fake_quantize`
