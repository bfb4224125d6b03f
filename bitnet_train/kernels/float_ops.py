"""The native runtime's float32 operations on torch tensors: the very floats that it computes between its linears.

    norm        x * (1 / sqrt(mean(x^2) + eps)) * weight, the mean summed in float64
    silu        x / (1 + exp(-x))
    gelu_tanh   x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), the tanh form of GELU without its cancellation
    tanh        a polynomial below 5/8, from there 1 - 2 / (exp(2x) + 1)
    rotary      cos and sin of float32(position * inv_freq), times a factor
    linear      x . weight^T + bias over float32, bfloat16 or float16 weights
    attention   softmax(q . k * scale) . v of one sequence, causal, with or without a window, scores capped or not

torch sums in another order and has an exp of its own, so its results differ by some units in the last place
(`tests/kernels/test_float_ops.py` derives how many). Whoever computes with these functions instead has the runtime's
bits: `validation.shared_operations`. A row's result depends neither on the rows beside it nor on the number of
threads. Instruction sets may differ in the last bit; the one in use is that of a native model loaded now.

Shapes: T tokens, S positions with keys, K inputs, N outputs, H heads, G key/value heads, D head_dim. Everything is on
the CPU and has no gradient; a KernelError says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.kernels.isa import REFERENCE, backend, core

__all__ = ["attention", "gelu_tanh", "linear", "norm", "require_core", "rotary", "silu", "tanh"]

_WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def norm(x: Tensor, weight: Tensor, eps: float, isa: str = "") -> Tensor:
    """Return the RMS norm float32 [.., K] of x float32 [.., K] with weight float32 [K]."""
    rows = _floats("x", x).reshape(-1, x.shape[-1])
    return _call("float_norm", rows, _floats("weight", weight), eps, isa).reshape(x.shape)


def silu(x: Tensor, isa: str = "") -> Tensor:
    """Return float32 of the shape of x float32 [.., K]: SwiGLU with an `up` of ones, and times 1 is exact."""
    return _gate(x, "silu", isa)


def gelu_tanh(x: Tensor, isa: str = "") -> Tensor:
    """Return float32 of the shape of x float32 [.., K]: GeGLU with an `up` of ones, and times 1 is exact."""
    return _gate(x, "gelu_tanh", isa)


def _gate(x: Tensor, activation: str, isa: str) -> Tensor:
    gate = _floats("x", x).reshape(-1, x.shape[-1])
    return _call("float_gated", gate, np.ones_like(gate), activation, isa).reshape(x.shape)


def tanh(x: Tensor, isa: str = "") -> Tensor:
    """Return float32 of the shape of x float32 [.., K]: a soft cap of 1, and divided by 1 and times 1 are exact."""
    return _call("float_soft_cap", _floats("x", x).reshape(-1, x.shape[-1]), 1.0, isa).reshape(x.shape)


def rotary(positions: Tensor, inv_freq: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin, float32 [T, D / 2] each, of positions int64 [T] and frequencies float32 [D / 2]."""
    _require_cpu("positions", positions, torch.int64)
    table = _call("float_rotary", _floats("inv_freq", inv_freq), scaling, positions.contiguous().numpy())
    return table[:, 0], table[:, 1]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, isa: str = "") -> Tensor:
    """Return float32 [.., N] for x float32 [.., K], weight [N, K] of one of three float types, bias float32 [N]."""
    if weight.dtype not in _WEIGHT_DTYPES or weight.device.type != "cpu" or weight.ndim != 2:
        raise KernelError(f"`weight` must be float32, bfloat16 or float16 [N, K] on the CPU, not {_told(weight)}.")
    rows = _floats("x", x).reshape(-1, x.shape[-1])
    stored = weight.detach().contiguous().view(torch.uint8).numpy()
    offset = None if bias is None else _floats("bias", bias)
    dtype = str(weight.dtype).removeprefix("torch.")
    y = _call("float_linear", rows, stored, dtype, offset, torch.get_num_threads(), isa)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    first_key: int = 0,
    window: int = 0,
    soft_cap: float = 0.0,
    isa: str = "",
    cache_dtype: str = "float32",
) -> Tensor:
    """Return float32 [T, H, D] for the last T of the positions that the keys have.

    Parameters
    ----------
    q
        Queries after head norms and rotation, float32 [T, H, D].
    k, v
        Keys after norms and rotation, and values, float32 [G, S, D] each; G divides H.
    scale
        What scores are multiplied by; None is 1 / sqrt(D).
    first_key
        The position of the first key; it decides where the pages begin that the runtime sums one by one.
    window
        Positions that a token sees, itself included; 0 is all before it.
    soft_cap
        Scores become soft_cap * tanh(score / soft_cap) after that; 0 leaves them.
    isa
        One of `core.float_isas()` instead of the one in use.
    cache_dtype
        How keys and values are kept: `float32`, or `int8` codes with a scale for each position of each head, which are
        multiplied as integers: `reference_attention` says how, and every instruction set has its bits.
    """
    arrays = (_floats(name, tensor) for name, tensor in (("q", q), ("k", k), ("v", v)))
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    places = (first_key, window, soft_cap)
    return _call("float_attention", *arrays, factor, *places, torch.get_num_threads(), isa, cache_dtype)


def require_core() -> Any:
    """Return the compiled extension with the instruction set of this process chosen; KernelError without one."""
    if backend() == REFERENCE or not hasattr(core, "float_attention"):
        raise KernelError(
            "The float operations of the native runtime need the compiled extension, and it is missing, older than "
            "this package, or the reference kernel is forced. Install bitnet-train again with a C++17 compiler."
        )
    return core


def _call(name: str, *arguments: Any) -> Tensor:
    function: Callable[..., np.ndarray] = getattr(require_core(), name)
    try:
        return torch.from_numpy(function(*arguments))
    except (ValueError, TypeError) as error:
        raise KernelError(f"{name}: {error}.") from error


def _floats(name: str, tensor: Tensor) -> np.ndarray:
    """Return a view of a float32 tensor, contiguous; a copy of one that is not."""
    _require_cpu(name, tensor, torch.float32)
    if tensor.requires_grad:
        raise KernelError(f"`{name}` needs a gradient, and these operations have none. Compute under torch.no_grad().")
    return tensor.contiguous().numpy()


def _require_cpu(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype or tensor.device.type != "cpu" or tensor.ndim == 0:
        raise KernelError(f"`{name}` must be {dtype} on the CPU, not {_told(tensor)}. Convert it first.")


def _told(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
