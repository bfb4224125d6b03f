"""The element-wise half of a training step: compiled, one pass over memory each, on the CPU; torch elsewhere.

    effective_weight     scale * codes of the latent weight, in the dtype of the product
    weight_gradients     dW_eff to d_latent and d_scale
    quantize_tokens      codes, scale and value of a layer's input
    dequantize_tokens    the value again, for the backward pass

The formulas are those of `quant.surrogate` and `quant.activation`, which compute them wherever the compiled ones do
not: on other devices, within `torch.compile`, without the extension or with BITNET_TRAIN_ISA=reference, in the soft
phases, in float16. Both give the same bits but for d_scale, whose sums are taken in another order. Nothing here has a
gradient of its own.

Shapes: T tokens, N outputs, K inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitnet_train.kernels.isa import REFERENCE, backend, core
from bitnet_train.quant.activation import dequantize_activation, quantize_activation, quantize_with_value
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Surrogate
from bitnet_train.quant.traced import is_traced

__all__ = ["dequantize_tokens", "effective_weight", "quantize_codes", "quantize_tokens", "weight_gradients"]

_DTYPES = (torch.float32, torch.bfloat16)


def effective_weight(
    latent: Tensor,
    scale: Tensor,
    scheme: WeightScheme,
    surrogate: Surrogate,
    hardness: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """W_eff [N, K] in `dtype` of latent float32 [N, K], scale float32 of scale_shape, hardness 0-dim float32."""
    compiled = _core_for(latent, scale, hardness)
    if compiled is None or dtype not in _DTYPES or not surrogate.is_hard(float(hardness)):
        return surrogate.effective(latent, scale, scheme, hardness, dtype)
    value = torch.empty(latent.shape, dtype=dtype)
    compiled.fake_quantize_weight(
        _array(latent), _array(scale), scheme.code_set, _array(value), torch.get_num_threads()
    )
    return value


def weight_gradients(
    grad: Tensor,
    latent: Tensor,
    scale: Tensor,
    scheme: WeightScheme,
    surrogate: Surrogate,
    hardness: Tensor,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """(d_latent float32 [N, K], d_scale float32 of scale_shape) of dW_eff [N, K], None where not `wanted`.

    A float32 dW_eff may be written over: d_latent is made in its memory. d_scale has the LSQ factor of
    `quant.surrogate`.
    """
    compiled = _core_for(latent, scale, hardness)
    if compiled is None or grad.dtype not in _DTYPES or not surrogate.is_hard(float(hardness)):
        return surrogate.gradients(grad, latent, scale, scheme, hardness, numel=latent.numel(), wanted=wanted)
    grad = grad.contiguous()
    d_latent = (grad if grad.dtype == torch.float32 else torch.empty(latent.shape)) if wanted[0] else None
    sums = torch.empty(latent.shape[0], scale.shape[1]) if wanted[1] else None
    compiled.weight_gradients(
        _array(grad),
        _array(latent),
        _array(scale),
        scheme.code_set,
        None if surrogate.hard_clip is None else surrogate.hard_clip * scheme.scales_per_mean,
        None if d_latent is None else _array(d_latent),
        None if sums is None else _array(sums),
        torch.get_num_threads(),
    )
    if sums is None:
        return d_latent, None
    if scale.shape == (1, 1):
        sums = sums.double().sum().float().reshape(1, 1)
    return d_latent, sums / latent.numel() ** 0.5


def quantize_tokens(x: Tensor, scheme: ActivationScheme, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Codes int8 [T, K], scale float32 [T, 1] and value [T, K] in `dtype` of x [T, K]; not for "none"."""
    compiled = _core_for_tokens(x, x.dtype, dtype)
    if compiled is None:
        return quantize_with_value(x, scheme, dtype)
    codes, scale = torch.empty(x.shape, dtype=torch.int8), torch.empty(x.shape[0], 1)
    value = torch.empty(x.shape, dtype=dtype)
    compiled.fake_quantize_tokens(
        _array(x.contiguous()), scheme.name, _array(codes), _array(scale), _array(value), torch.get_num_threads()
    )
    return codes, scale, value


def quantize_codes(x: Tensor, scheme: ActivationScheme) -> tuple[Tensor, Tensor]:
    """Codes and scale of `quantize_tokens`, without the value."""
    compiled = _core_for_tokens(x, x.dtype, x.dtype)
    if compiled is None:
        return quantize_activation(x, scheme)
    codes, scale = torch.empty(x.shape, dtype=torch.int8), torch.empty(x.shape[0], 1)
    arrays = _array(codes), _array(scale)
    compiled.fake_quantize_tokens(_array(x.contiguous()), scheme.name, *arrays, None, torch.get_num_threads())
    return codes, scale


def dequantize_tokens(codes: Tensor, scale: Tensor, x_dtype: torch.dtype, dtype: torch.dtype) -> Tensor:
    """The value of `quantize_tokens` again, bit for bit, for an input that had `x_dtype`."""
    compiled = _core_for_tokens(codes, x_dtype, dtype)
    if compiled is None:
        return dequantize_activation(codes, scale, x_dtype, dtype)
    value = torch.empty(codes.shape, dtype=dtype)
    compiled.dequantize_tokens(_array(codes), _array(scale), _array(value), torch.get_num_threads())
    return value


def _core_for(latent: Tensor, *others: Tensor) -> Any:
    """The compiled module, where it can take these tensors, else None."""
    if is_traced(latent):
        return None
    fits = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in (latent, *others))
    contiguous = all(tensor.is_contiguous() for tensor in (latent, *others))
    return _core() if fits and contiguous and latent.numel() > 0 else None


def _core_for_tokens(x: Tensor, x_dtype: torch.dtype, dtype: torch.dtype) -> Any:
    one_rounding = dtype in _DTYPES and x_dtype in (torch.float32, dtype)
    is_here = x.device.type == "cpu" and not is_traced(x)
    return _core() if one_rounding and is_here and x.numel() > 0 else None


def _core() -> Any:
    if core is None or not hasattr(core, "fake_quantize_weight") or backend() == REFERENCE:
        return None
    return core


def _array(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous tensor; bfloat16 as its bits.

    By DLPack: `numpy()` forbids for ever that a storage is let go of, as weights are that are gathered for one block.
    """
    tensor = torch.from_dlpack(tensor.detach())
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
