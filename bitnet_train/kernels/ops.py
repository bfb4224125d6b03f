"""The torch operators over the compiled kernels: `bitnet_train::packed_linear` and `bitnet_train::packed_dot`.

Both take integer codes and packed weights and keep the float contract of `reference.py` bit for bit, whichever kernel
runs. They work under `torch.compile` and with fake tensors, on any device (the compiled kernels on the CPU, the
reference elsewhere), and are not differentiable: training goes through the quantiser, not through packed weights.

Shapes: T tokens, N outputs, K inputs, P planes, G groups per row, W words per group.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.formats.planes import NUM_PLANES
from bitnet_train.kernels import reference
from bitnet_train.kernels.isa import REFERENCE, available_isas, backend, core, forced_isa
from bitnet_train.kernels.reference import count_groups
from bitnet_train.kernels.words import repack, unpack_words, words_per_group

__all__ = ["ACTIVATIONS", "available_isas", "backend", "forced_isa", "packed_dot", "packed_linear", "repack"]

ACTIVATIONS = ("int8", "sign")
"""Activation schemes that have integer kernels."""


def packed_linear(
    x_codes: Tensor,
    x_scale: Tensor,
    words: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    num_inputs: int,
    group_size: int,
    weight_name: str,
    activation_name: str,
) -> Tensor:
    """Return y float32 [T, N] = rescale(x_codes . codes of words), equal to `reference.linear` bit for bit.

    x_codes int8 [T, K] (for "sign": only -1 and +1), x_scale float32 [T, 1], words int64 [P, N, G, W] from `repack`,
    w_scale float32 [N, G] or [1, 1], bias float32 [N] or None, all contiguous and on one device. Uses at most
    `torch.get_num_threads()` threads; the result does not depend on their number.

    Raises KernelError for any other shape, dtype, stride, scheme or instruction set.
    """
    return torch.ops.bitnet_train.packed_linear(
        x_codes, x_scale, words, w_scale, bias, num_inputs, group_size, weight_name, activation_name
    )


def packed_dot(
    x_codes: Tensor, words: Tensor, num_inputs: int, group_size: int, weight_name: str, activation_name: str
) -> Tensor:
    """Return the exact products int32 [T, N, G] that `packed_linear` rescales, equal to `reference.grouped_dot`.

    Arguments and errors as in `packed_linear`.
    """
    return torch.ops.bitnet_train.packed_dot(x_codes, words, num_inputs, group_size, weight_name, activation_name)


def _packed_linear(
    x_codes: Tensor,
    x_scale: Tensor,
    words: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    num_inputs: int,
    group_size: int,
    weight_name: str,
    activation_name: str,
) -> Tensor:
    _check_codes(x_codes, words, num_inputs, group_size, weight_name, activation_name)
    _check_factors(x_codes, x_scale, words, w_scale, bias)
    isa = backend()
    if core is None or isa == REFERENCE or x_codes.device.type != "cpu":
        codes = unpack_words(words, group_size, weight_name)
        return reference.linear(x_codes, x_scale, codes, w_scale, bias, group_size)
    out = torch.empty(x_codes.shape[0], words.shape[1])
    core.packed_linear(
        isa,
        x_codes.numpy(),
        x_scale.detach().numpy(),
        words.numpy(),
        w_scale.detach().numpy(),
        None if bias is None else bias.detach().numpy(),
        out.numpy(),
        group_size,
        activation_name == "sign",
        torch.get_num_threads(),
    )
    return out


def _packed_dot(
    x_codes: Tensor, words: Tensor, num_inputs: int, group_size: int, weight_name: str, activation_name: str
) -> Tensor:
    _check_codes(x_codes, words, num_inputs, group_size, weight_name, activation_name)
    isa = backend()
    if core is None or isa == REFERENCE or x_codes.device.type != "cpu":
        return reference.grouped_dot(x_codes, unpack_words(words, group_size, weight_name), group_size)
    out = torch.empty(x_codes.shape[0], *words.shape[1:3], dtype=torch.int32)
    sign, threads = activation_name == "sign", torch.get_num_threads()
    core.packed_dot(isa, x_codes.numpy(), words.numpy(), out.numpy(), group_size, sign, threads)
    return out


def _fake_packed_linear(
    x_codes: Tensor,
    x_scale: Tensor,
    words: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    num_inputs: int,
    group_size: int,
    weight_name: str,
    activation_name: str,
) -> Tensor:
    _check_codes(x_codes, words, num_inputs, group_size, weight_name, activation_name)
    _check_factors(x_codes, x_scale, words, w_scale, bias)
    return x_scale.new_empty(x_codes.shape[0], words.shape[1])


def _fake_packed_dot(
    x_codes: Tensor, words: Tensor, num_inputs: int, group_size: int, weight_name: str, activation_name: str
) -> Tensor:
    _check_codes(x_codes, words, num_inputs, group_size, weight_name, activation_name)
    return x_codes.new_empty(x_codes.shape[0], *words.shape[1:3], dtype=torch.int32)


def _check_codes(
    x_codes: Tensor, words: Tensor, num_inputs: int, group_size: int, weight_name: str, activation_name: str
) -> None:
    if weight_name not in NUM_PLANES or activation_name not in ACTIVATIONS:
        raise KernelError(
            f"No integer kernel for weights {weight_name!r} with activations {activation_name!r}. "
            f"Allowed: {', '.join(NUM_PLANES)} with {', '.join(ACTIVATIONS)}."
        )
    num_groups = count_groups(num_inputs, group_size)
    _check("x_codes", x_codes, torch.int8, (None, num_inputs), x_codes.device)
    words_shape = (NUM_PLANES[weight_name], None, num_groups, words_per_group(group_size))
    _check("words", words, torch.int64, words_shape, x_codes.device)


def _check_factors(x_codes: Tensor, x_scale: Tensor, words: Tensor, w_scale: Tensor, bias: Tensor | None) -> None:
    _, num_outputs, num_groups, _ = words.shape
    _check("x_scale", x_scale, torch.float32, (x_codes.shape[0], 1), x_codes.device)
    if w_scale.shape != (1, 1) or w_scale.dtype != torch.float32:
        _check("w_scale", w_scale, torch.float32, (num_outputs, num_groups), x_codes.device)
    if bias is not None:
        _check("bias", bias, torch.float32, (num_outputs,), x_codes.device)


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
        "Quantise activations to int8 codes, make weights with `repack`, and call `.contiguous()`."
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
    "packed_linear(Tensor x_codes, Tensor x_scale, Tensor words, Tensor w_scale, Tensor? bias, int num_inputs, "
    "int group_size, str weight_name, str activation_name) -> Tensor",
    _packed_linear,
    _fake_packed_linear,
)
_register(
    "packed_dot(Tensor x_codes, Tensor words, int num_inputs, int group_size, str weight_name, str activation_name) "
    "-> Tensor",
    _packed_dot,
    _fake_packed_dot,
)
