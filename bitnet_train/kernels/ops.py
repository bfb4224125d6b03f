"""The torch operators over the compiled kernels: `bitnet_train::packed_linear` and `bitnet_train::packed_dot`.

A weight is packed once, at load: `pack` chooses the best kernel for its shape and scheme, and arranges bits and scales
in one linear stream in the order in which that kernel reads them. `packed_linear` quantises float activations and
multiplies; it keeps the float contract of `reference.py` bit for bit, whichever kernel runs. Both operators work under
`torch.compile` and with fake tensors, on any device (the compiled kernels on the CPU, the reference elsewhere), and are
not differentiable: training goes through the quantiser, not through packed weights.

Shapes: T tokens, N outputs, K inputs, P planes, G groups per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.formats.planes import NUM_PLANES, row_bytes, unpack_planes
from bitnet_train.kernels import reference
from bitnet_train.kernels.isa import REFERENCE, available_isas, backend, core, forced_isa
from bitnet_train.kernels.reference import count_groups
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import CODES, ActivationScheme, CodeSet

__all__ = [
    "ACTIVATIONS",
    "PackedWeight",
    "available_isas",
    "backend",
    "forced_isa",
    "pack",
    "packed_dot",
    "packed_linear",
    "unpack",
]

ACTIVATIONS = ("int8", "int4", "sign")
"""Activation schemes that have integer kernels."""

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class PackedWeight:
    """What a kernel needs to know of a weight besides its stream. `kernel` is "lookup.avx512" and the like.

    With the kernel "reference" the stream is `planes_v1` followed by the scales, float32 [N, G].
    """

    kernel: str
    num_outputs: int
    num_inputs: int
    group_size: int
    code_set: str
    activation_name: str
    half_scales: bool

    @property
    def num_groups(self) -> int:
        """G, scale groups per row."""
        return self.num_inputs // self.group_size

    @property
    def planes(self) -> int:
        """How many +-1 weights multiply in turn (`reference.linear`)."""
        return 1 if self.code_set == "ternary" else NUM_PLANES[self.code_set]

    @property
    def spec(self) -> tuple[int, int, int, str, str, bool]:
        """The description as the compiled module takes it."""
        sizes = (self.num_outputs, self.num_inputs, self.group_size)
        return (*sizes, self.code_set, self.activation_name, self.half_scales)


def pack(
    planes: Tensor, scale: Tensor, num_inputs: int, group_size: int, code_set: CodeSet, activation_name: str
) -> tuple[Tensor, PackedWeight]:
    """Arrange `planes_v1` uint8 [P, N, bytes] and scale float32 [N, G] or [1, 1] for the best kernel of this machine.

    Returns the stream, uint8 [bytes], and its description. Raises KernelError for a scheme without an integer kernel,
    for scales of another shape, and when `group_size` does not divide `num_inputs`; FormatError for damaged planes.
    """
    _check_scheme(code_set, activation_name)
    num_groups, num_outputs = count_groups(num_inputs, group_size, CODES[code_set][-1]), planes.shape[1]
    if scale.shape != (1, 1) or num_groups != 1:
        _check("scale", scale, torch.float32, (num_outputs, num_groups), scale.device)
    names = (num_outputs, num_inputs, group_size, code_set, activation_name)
    unpack_planes(planes, num_inputs, code_set)  # refuses bytes that no packer writes
    isa = backend()
    if core is None or isa == REFERENCE:
        full = scale.expand(num_outputs, num_groups).contiguous()
        stream = torch.cat([planes.reshape(-1), full.reshape(-1).view(torch.uint8)])
        return stream, PackedWeight(REFERENCE, *names, half_scales=False)
    arrays = planes.contiguous().numpy(force=True), scale.contiguous().numpy(force=True)
    threads = torch.get_num_threads()
    stream, kernel, half = core.pack(*arrays, num_inputs, group_size, code_set, activation_name, threads)
    return torch.from_numpy(stream), PackedWeight(kernel, *names, half_scales=half)


def unpack(stream: Tensor, weight: PackedWeight) -> tuple[Tensor, Tensor]:
    """Return codes int8 [N, K] and scale float32 [N, G] of a stream, on its device: the inverse of `pack`."""
    num_outputs, num_inputs = weight.num_outputs, weight.num_inputs
    if weight.kernel == REFERENCE:
        scale_bytes = 4 * num_outputs * weight.num_groups
        planes = stream[:-scale_bytes].reshape(NUM_PLANES[weight.code_set], num_outputs, row_bytes(num_inputs))
        scale = stream[-scale_bytes:].clone().view(torch.float32).reshape(num_outputs, weight.num_groups)
        return unpack_planes(planes, num_inputs, weight.code_set).to(stream.device), scale
    assert core is not None, "a stream of a compiled kernel needs the compiled module"
    codes = np.empty((num_outputs, num_inputs), np.int8)
    scale = np.empty((num_outputs, weight.num_groups), np.float32)
    core.unpack(weight.kernel, weight.spec, _readable(stream), codes, scale)
    return torch.from_numpy(codes).to(stream.device), torch.from_numpy(scale).to(stream.device)


def packed_linear(x: Tensor, stream: Tensor, bias: Tensor | None, weight: PackedWeight) -> Tensor:
    """Return y float32 [T, N] of x float32 [T, K]: quantised per token, multiplied, rescaled.

    Equal bit for bit to `reference.linear` of the codes and scales of `quantize_activation`. `stream` and `weight` come
    from `pack`, bias is float32 [N] or None; all contiguous and on one device. Uses at most `torch.get_num_threads()`
    threads; the result does not depend on their number.

    Raises KernelError for any other shape, dtype or stride.
    """
    return torch.ops.bitnet_train.packed_linear(x, stream, bias, weight.kernel, *weight.spec)


def packed_dot(x_codes: Tensor, stream: Tensor, weight: PackedWeight) -> Tensor:
    """Return the exact products int32 [T, N, G] of x_codes int8 [T, K], equal to `reference.grouped_dot`.

    Codes must be those of the activation scheme (for "sign" only -1 and +1, for "int4" -8 to 7). Errors as above, and
    for other codes.
    """
    return torch.ops.bitnet_train.packed_dot(x_codes, stream, weight.kernel, *weight.spec)


_WEIGHT = (
    "str kernel, int num_outputs, int num_inputs, int group_size, str code_set, str activation_name, bool half_scales"
)
_WeightArguments = str | int | bool


def _packed_linear(x: Tensor, stream: Tensor, bias: Tensor | None, *arguments: _WeightArguments) -> Tensor:
    weight = _weight(arguments)
    _check_linear(x, stream, bias, weight)
    if core is None or weight.kernel == REFERENCE or x.device.type != "cpu":
        x_codes, x_scale = quantize_activation(x, ActivationScheme(weight.activation_name))  # type: ignore[arg-type]
        codes, scale = unpack(stream, weight)
        return reference.linear(x_codes, x_scale, codes, scale, bias, weight.group_size, weight.planes)
    out = torch.empty(x.shape[0], weight.num_outputs)
    bias_array = None if bias is None else torch.from_dlpack(bias.detach()).numpy()  # see `fake_quantize`
    arrays = _readable(stream), x.detach().numpy(), bias_array, out.numpy()
    core.packed_linear(weight.kernel, weight.spec, *arrays, torch.get_num_threads())
    return out


def _packed_dot(x_codes: Tensor, stream: Tensor, *arguments: _WeightArguments) -> Tensor:
    weight = _weight(arguments)
    _check_dot(x_codes, stream, weight)
    _check_codes(x_codes, weight.activation_name)
    if core is None or weight.kernel == REFERENCE or x_codes.device.type != "cpu":
        return reference.grouped_dot(x_codes, unpack(stream, weight)[0], weight.group_size)
    out = torch.empty(x_codes.shape[0], weight.num_outputs, weight.num_groups, dtype=torch.int32)
    arrays = _readable(stream), x_codes.numpy(), out.numpy()
    core.packed_dot(weight.kernel, weight.spec, *arrays, torch.get_num_threads())
    return out


def _fake_packed_linear(x: Tensor, stream: Tensor, bias: Tensor | None, *arguments: _WeightArguments) -> Tensor:
    weight = _weight(arguments)
    _check_linear(x, stream, bias, weight)
    return x.new_empty(x.shape[0], weight.num_outputs)


def _fake_packed_dot(x_codes: Tensor, stream: Tensor, *arguments: _WeightArguments) -> Tensor:
    weight = _weight(arguments)
    _check_dot(x_codes, stream, weight)
    return x_codes.new_empty(x_codes.shape[0], weight.num_outputs, weight.num_groups, dtype=torch.int32)


def _weight(arguments: tuple[_WeightArguments, ...]) -> PackedWeight:
    return PackedWeight(*arguments)  # type: ignore[arg-type]


def _readable(stream: Tensor) -> np.ndarray:
    """Return the bytes of a stream on the CPU, where kernels may read them: a moved or loaded one may be misaligned."""
    stream = stream.cpu()
    if stream.data_ptr() % _ALIGNMENT_BYTES == 0:
        return stream.numpy()
    room = np.empty(stream.numel() + _ALIGNMENT_BYTES, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT_BYTES
    aligned = room[start : start + stream.numel()]
    aligned[:] = stream.numpy()
    return aligned


def _check_linear(x: Tensor, stream: Tensor, bias: Tensor | None, weight: PackedWeight) -> None:
    _check("x", x, torch.float32, (None, weight.num_inputs), x.device)
    _check("stream", stream, torch.uint8, (None,), x.device)
    if bias is not None:
        _check("bias", bias, torch.float32, (weight.num_outputs,), x.device)


def _check_dot(x_codes: Tensor, stream: Tensor, weight: PackedWeight) -> None:
    _check("x_codes", x_codes, torch.int8, (None, weight.num_inputs), x_codes.device)
    _check("stream", stream, torch.uint8, (None,), x_codes.device)


def _check_codes(x_codes: Tensor, activation_name: str) -> None:
    allowed = {"int4": "-8 to 7", "sign": "-1 and +1"}.get(activation_name)
    if allowed is None or x_codes.numel() == 0:  # int8: every code
        return
    wrong = x_codes.abs() != 1 if activation_name == "sign" else (x_codes < -8) | (x_codes > 7)
    if wrong.any():
        raise KernelError(
            f"`x_codes` has {int(x_codes[wrong][0])}, which is no code of `{activation_name}`. Allowed: {allowed}, as "
            "`quantize_activation` gives them."
        )


def _check_scheme(code_set: str, activation_name: str) -> None:
    if code_set not in NUM_PLANES or activation_name not in ACTIVATIONS:
        raise KernelError(
            f"No integer kernel for weights {code_set!r} with activations {activation_name!r}. "
            f"Allowed: {', '.join(NUM_PLANES)} with {', '.join(ACTIVATIONS)}."
        )


def _check(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...], device: torch.device) -> None:
    """Raise KernelError unless the tensor is contiguous, of this dtype and device, and of this shape (None: any)."""
    fits = len(shape) == tensor.ndim and all(
        want is None or size == want for want, size in zip(shape, tensor.shape, strict=True)
    )
    if fits and tensor.dtype == dtype and tensor.device == device and tensor.is_contiguous():
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise KernelError(
        f"`{name}` must be {_short(dtype)} [{wanted}], contiguous, on {device}; got {_short(tensor.dtype)} "
        f"{list(tensor.shape)} with strides {list(tensor.stride())} on {tensor.device}. "
        "Make streams with `pack`, and call `.float().contiguous()` on the input."
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _register(signature: str, kernel: Callable[..., Tensor], fake: Callable[..., Tensor]) -> None:
    name = signature.partition("(")[0]
    _LIBRARY.define(signature, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"bitnet_train::{name}", fake, lib=_LIBRARY)


_LIBRARY = torch.library.Library("bitnet_train", "FRAGMENT")
_register(
    f"packed_linear(Tensor x, Tensor stream, Tensor? bias, {_WEIGHT}) -> Tensor", _packed_linear, _fake_packed_linear
)
_register(f"packed_dot(Tensor x_codes, Tensor stream, {_WEIGHT}) -> Tensor", _packed_dot, _fake_packed_dot)
