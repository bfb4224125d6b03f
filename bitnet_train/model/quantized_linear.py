"""The training forward of a 1-bit linear layer as one step of autograd, lean in memory and in passes over it.

    forward     x_q = Qa(x);  W_eff = f(latent, scale);  y = x_q W_eff^T + b
    backward    dx = dy W_eff                        identity straight-through, arXiv 1308.3432
                dW_eff = dy^T x_q                    and from it d_latent, d_scale by the surrogate
                db = sum of dy over the tokens

In floats the matrix products run in the dtype of autocast, else of x. The results equal, bit for bit, those of the
composition `linear(fake_quantize_activation(x), surrogate.weight(latent, scale, ...), b)`, which stays as the reference
of the tests; only d_scale sums in another order. Kept for the backward are int8 codes and a float32 scale a token
instead of a float input, and the latent, a parameter that is there anyway: W_eff is made from it again, one pass for no
copy of all weights. Where the latent is itself made (LoRA inside), W_eff is kept, the latent only if the surrogate
reads it.

Within `training_products` they run in integers instead (`kernels.integer_training`), once the quantised weight is hard:

    forward     y alone: the same numbers summed exactly, the bits of evaluation
    integer     dx and dW too, from dy rounded to 8 bits; W_eff is never made, a bit a weight is kept in its place

On a GPU `forward` multiplies on its int8 units (`kernels.int_mm`), the backward in floats. Within `torch.compile` it is
the composition itself that is recorded: the compiler joins its passes, and keeps what is cheaper kept than made anew.

Layers that are given the same input (query, key, value; gate, up) share its codes: they are kept on the input tensor,
until it changes or is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitnet_train.kernels import int_mm
from bitnet_train.kernels.fake_quantize import (
    dequantize_tokens,
    effective_weight,
    quantize_codes,
    quantize_tokens,
    weight_gradients,
)
from bitnet_train.kernels.integer_training import (
    PackedLatent,
    forward_product,
    input_gradient,
    pack_latent,
    weight_gradient,
)
from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Surrogate
from bitnet_train.quant.weight import quantize

Products = Literal["float", "forward", "integer"]
MIN_TOKENS = 256
"""Packing a weight takes about as long as multiplying a hundred tokens; fewer than these are multiplied in floats."""
_products: ContextVar[Products] = ContextVar("products", default="float")


@contextmanager
def training_products(products: Products) -> Iterator[None]:
    """Let 1-bit linears in training multiply so, as autocast chooses a type, where codes are integers."""
    token = _products.set(products)
    try:
        yield
    finally:
        _products.reset(token)


@dataclass(frozen=True)
class Quantizers:
    """How one layer quantises its weight and its input."""

    weight: WeightScheme
    activation: ActivationScheme
    surrogate: Surrogate


def quantized_linear(
    x: Tensor, latent: Tensor, scale: Tensor, bias: Tensor | None, hardness: Tensor, quantizers: Quantizers
) -> Tensor:
    """y [.., N] in the dtype of the product, for x [.., K], latent float32 [N, K], scale float32 of scale_shape.

    `bias` is float32 [N] or None, `hardness` a 0-dim float32 tensor. Differentiable once in x, latent, scale and bias.
    """
    dtype = product_dtype(x)
    if torch.compiler.is_compiling():
        return _composed(x, latent, scale, bias, hardness, quantizers, dtype)
    tokens = _tokens(x, quantizers.activation, dtype)
    result = _QuantizedLinear.apply(x, latent, scale, bias, hardness, quantizers, tokens)
    assert isinstance(result, Tensor)
    return result


def _composed(
    x: Tensor,
    latent: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    hardness: Tensor,
    quantizers: Quantizers,
    dtype: torch.dtype,
) -> Tensor:
    """The same, put together from functions that are differentiable each."""
    with torch.autocast(x.device.type, enabled=False):
        value = fake_quantize_activation(x, quantizers.activation).to(dtype)
        weight = quantizers.surrogate.weight(latent, scale, quantizers.weight, hardness).to(dtype)
        return F.linear(value, weight, None if bias is None else bias.to(dtype))


@dataclass(frozen=True)
class _Tokens:
    """The quantised input: codes int8 [T, K], scale float32 [T, 1], and the value [T, K] where floats will multiply."""

    dtype: torch.dtype
    """Of the product."""
    x_dtype: torch.dtype
    codes: Tensor | None
    scale: Tensor | None
    known_value: Tensor | None

    @property
    def value(self) -> Tensor:
        """[T, K] in the dtype of the product."""
        if self.known_value is not None:
            return self.known_value
        assert self.codes is not None
        assert self.scale is not None
        return dequantize_tokens(self.codes, self.scale, self.x_dtype, self.dtype)


class _QuantizedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        latent: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        hardness: Tensor,
        quantizers: Quantizers,
        tokens: _Tokens,
    ) -> Tensor:
        dtype = tokens.dtype
        products = _products_of(tokens, latent, hardness, quantizers)
        weight = packed = None
        with torch.autocast(x.device.type, enabled=False):
            if products == "float":
                weight = _effective(latent, scale, hardness, quantizers, dtype)
                y = F.linear(tokens.value, weight, None if bias is None else bias.to(dtype))
            elif x.device.type != "cpu":
                y = _on_int8_units(tokens, latent, scale, bias, quantizers).to(dtype)
                weight = None if latent.is_leaf else _effective(latent, scale, hardness, quantizers, dtype)
            else:
                is_kept = products == "integer" and ctx.needs_input_grad[0]
                packed = pack_latent(latent, scale, quantizers.weight, quantizers.activation, for_backward=is_kept)
                assert tokens.codes is not None
                assert tokens.scale is not None
                y = forward_product(tokens.codes, tokens.scale, packed, bias).to(dtype)
        ctx.quantizers, ctx.x_shape, ctx.x_dtype, ctx.dtype = quantizers, x.shape, x.dtype, dtype
        ctx.packed = packed if products == "integer" else None
        kept = _kept(ctx.needs_input_grad, latent, scale, hardness, quantizers, tokens)
        ctx.save_for_backward(None if latent.is_leaf else weight, *kept)
        return y.reshape(*x.shape[:-1], latent.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, latent, scale, hardness, *tokens = ctx.saved_tensors
        by_x, by_latent, by_scale, by_bias, *_ = ctx.needs_input_grad
        dy = grad_outputs[0].reshape(-1, grad_outputs[0].shape[-1])
        dx = d_latent = d_scale = db = None
        with torch.autocast(dy.device.type, enabled=False):
            if by_bias:
                db = dy.sum(dim=0).float()
            if ctx.packed is not None:
                dy = dy.float().contiguous()
            if by_x:
                if weight is None and ctx.packed is None:
                    weight = _effective(latent, scale, hardness, ctx.quantizers, ctx.dtype)
                dx = _by_input(dy, weight, ctx.packed).to(ctx.x_dtype).reshape(ctx.x_shape)
            if by_latent or by_scale:
                dw = _by_weight(dy, tokens, ctx)
                d_latent, d_scale = _split(dw, latent, scale, hardness, ctx.quantizers, (by_latent, by_scale))
        ctx.packed = None  # the graph lives on, and its codes are a byte a weight
        return dx, d_latent, d_scale, db, None, None, None


def _products_of(tokens: _Tokens, latent: Tensor, hardness: Tensor, quantizers: Quantizers) -> Products:
    """How this layer multiplies. By integers alone in the forward only where the backward makes W_eff anew anyway."""
    asked = _products.get()
    if asked == "float" or tokens.codes is None or len(tokens.codes) < MIN_TOKENS:
        return "float"
    if not quantizers.surrogate.is_hard(_number(hardness)):
        return "float"
    if tokens.codes.device.type != "cpu":
        return "forward"
    is_worth = asked == "integer" or (latent.is_leaf and tokens.dtype == torch.float32)
    return asked if is_worth else "float"


_NUMBER = "_bitnet_train_number"


def _number(hardness: Tensor) -> float:
    """The hardness on the host, asked of its device only after it has changed."""
    version, number = getattr(hardness, _NUMBER, (None, 0.0))
    if version != hardness._version:
        number = float(hardness)
        setattr(hardness, _NUMBER, (hardness._version, number))
    return number


def _on_int8_units(
    tokens: _Tokens, latent: Tensor, scale: Tensor, bias: Tensor | None, quantizers: Quantizers
) -> Tensor:
    """y float32 [T, N] of `kernels.int_mm`."""
    assert tokens.codes is not None
    assert tokens.scale is not None
    scheme = quantizers.weight
    codes, group_size = quantize(latent, scale, scheme), scheme.inputs_per_scale(latent.shape[1])
    return int_mm.linear(tokens.codes, tokens.scale, codes, scale, bias, group_size, scheme.planes)


def _by_input(dy: Tensor, weight: Tensor | None, packed: PackedLatent | None) -> Tensor:
    """dx [T, K] of dy [T, N], float32 where integers multiply."""
    if packed is not None:
        return input_gradient(dy, packed)
    assert weight is not None
    return dy.mm(weight)


def _by_weight(dy: Tensor, tokens: list[Tensor], ctx: Any) -> Tensor:
    """dW_eff [N, K] of dy [T, N], float32 where integers multiply, and what was kept of the tokens."""
    if ctx.packed is not None:
        codes, scale = tokens
        return weight_gradient(dy, codes, scale)
    return dy.t().mm(_value(tokens, ctx.x_dtype, ctx.dtype))


def _effective(latent: Tensor, scale: Tensor, hardness: Tensor, quantizers: Quantizers, dtype: torch.dtype) -> Tensor:
    return effective_weight(latent, scale, quantizers.weight, quantizers.surrogate, hardness, dtype)


def _kept(
    needs: tuple[bool, ...], latent: Tensor, scale: Tensor, hardness: Tensor, quantizers: Quantizers, tokens: _Tokens
) -> tuple[Tensor | None, ...]:
    """What the backward needs besides W_eff: (latent, scale, hardness, the value of the tokens or codes and scale)."""
    by_latent, by_scale = needs[1], needs[2]
    read = by_scale or (by_latent and not _passes_unchanged(quantizers.surrogate))
    weights = (latent, scale, hardness) if latent.is_leaf or read else (None, None, None)
    if not (by_latent or by_scale):
        return weights
    return *weights, *((tokens.value,) if tokens.codes is None else (tokens.codes, tokens.scale))


def _passes_unchanged(surrogate: Surrogate) -> bool:
    """Whether d_latent = dW_eff at every hardness."""
    return surrogate.name == "identity"


def _split(
    dw: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    hardness: Tensor | None,
    quantizers: Quantizers,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    if _passes_unchanged(quantizers.surrogate) and not wanted[1]:
        return dw.float(), None
    assert latent is not None
    assert scale is not None
    assert hardness is not None
    return weight_gradients(dw, latent, scale, quantizers.weight, quantizers.surrogate, hardness, wanted)


def _value(tokens: list[Tensor], x_dtype: torch.dtype, dtype: torch.dtype) -> Tensor:
    if len(tokens) == 1:
        return tokens[0]
    codes, scale = tokens
    return dequantize_tokens(codes, scale, x_dtype, dtype)


def product_dtype(x: Tensor) -> torch.dtype:
    """Return what a product of x is computed in: the type of autocast where it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


_SHARED = "_bitnet_train_tokens"


@torch.no_grad()
def _tokens(x: Tensor, activation: ActivationScheme, dtype: torch.dtype) -> _Tokens:
    """The quantised rows of x, those kept on it if it has not changed since."""
    if x.is_inference():
        return _quantized(x, activation, dtype)
    key = (x._version, activation.name, dtype)
    kept_key, kept = getattr(x, _SHARED, (None, None))
    if kept is None or kept_key != key:
        kept = _quantized(x, activation, dtype)
        setattr(x, _SHARED, (key, kept))
    return kept


def _quantized(x: Tensor, activation: ActivationScheme, dtype: torch.dtype) -> _Tokens:
    rows = x.detach().reshape(-1, x.shape[-1])
    if activation.name == "none":
        return _Tokens(dtype, x.dtype, None, None, rows.to(dtype))
    if _products.get() != "float":
        return _Tokens(dtype, x.dtype, *quantize_codes(rows, activation), None)
    codes, scale, value = quantize_tokens(rows, activation, dtype)
    return _Tokens(dtype, x.dtype, codes, scale, value)
