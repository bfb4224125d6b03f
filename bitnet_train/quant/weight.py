"""Latent weights to codes and scales, and back.

    binary    codes = where(w >= 0, +1, -1)                  arXiv 2310.11453, but sign(0) = +1: there is no third value
    ternary   codes = clamp(round(w / scale), -1, +1)        arXiv 2402.17764, round half to even
    scale     mean|w| over the tensor, the row or the group, rounded to `scale_dtype`

Scales never fall below the smallest *normal* number of `scale_dtype` (2^-14 for float16): a subnormal scale would
keep only a few bits, and a zero scale would erase the sign. An all-zero row therefore becomes a tiny constant, not 0.
Only a learnable scale of exactly 0, which comes from a file of 1-bit weights, stays 0. Its ternary codes are the signs
of the latents, with sign(0) = 0, as `divisor` says.
Everything is computed in float32. Not done here: packing into bits (`formats`), gradients (`surrogate`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bitnet_train.errors import ConversionError
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.straight_through import straight_through

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""The smallest normal float32: no scale but 0 is below it."""

_BLOCK_WEIGHTS = 1 << 17  # quantised at a time: float32 intermediates of this size stay in a cache


def absmean_scale(w_NK: Tensor, scheme: WeightScheme, *, checked: bool = True) -> Tensor:
    """Scale mean|w| as float32 of `scheme.scale_shape(N, K)`, holding values exact in `scheme.scale_dtype`.

    No gradient flows through it. Raises ConversionError when a mean is not finite or above the largest value of
    `scale_dtype`; `checked=False` leaves that check out (it waits for the device) and then such a scale is inf or NaN.
    """
    with torch.no_grad():
        magnitude = w_NK.detach().float().abs()
        num_outputs, num_inputs = w_NK.shape
        shape = scheme.scale_shape(num_outputs, num_inputs)
        if shape == (1, 1):
            mean = magnitude.mean().reshape(1, 1)
        else:
            mean = magnitude.reshape(num_outputs, shape[1], num_inputs // shape[1]).mean(dim=-1)
        if checked:
            _require_storable(mean, scheme)
        return _rounded(mean, scheme)


def round_scale(scale: Tensor, scheme: WeightScheme) -> Tensor:
    """A learnable float32 scale, rounded to `scale_dtype`: 0, or at least its smallest normal; identity gradient."""
    value = scale.detach()
    return straight_through(scale, torch.where(value == 0, 0.0, _rounded(value, scheme)))


def divisor(scale: Tensor) -> Tensor:
    """What latent weights are divided by: the float32 scale, or `SMALLEST_SCALE` where it is 0, so that 0 / 0 is 0."""
    return scale.clamp(min=SMALLEST_SCALE)


def quantize(w_NK: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    """Codes, int8 [N, K]: {-1, +1} for binary, {-1, 0, +1} for ternary. `scale` is float32 as `absmean_scale` gives."""
    w_NK, scale = w_NK.detach(), divisor(scale.detach())
    codes = torch.empty(w_NK.shape, dtype=torch.int8, device=w_NK.device)
    for some in row_blocks(w_NK, _BLOCK_WEIGHTS):
        codes[some] = _codes(w_NK[some].float(), scale[some] if len(scale) > 1 else scale, scheme)
    return codes


def row_blocks(w_NK: Tensor, num_weights: int) -> Iterator[slice]:
    """Yield slices of rows, at most `num_weights` in all, so that what is computed of them stays in a cache.

    On other devices than the CPU all rows are one slice: there every operation costs a launch.
    """
    num_rows, num_columns = w_NK.shape
    rows = max(1, num_weights // num_columns if w_NK.device.type == "cpu" else num_rows)
    for first in range(0, num_rows, rows):
        yield slice(first, first + rows)


def _codes(w_NK: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    if not scheme.has_zero:
        return (w_NK >= 0).to(torch.int8).mul_(2).sub_(1)
    groups = w_NK.reshape(len(w_NK), scale.shape[1], -1)
    return (groups / scale.unsqueeze(-1)).round_().clamp_(-1, 1).to(torch.int8).reshape(w_NK.shape)


def float_codes(w_NK: Tensor, scale_expanded: Tensor, scheme: WeightScheme) -> Tensor:
    """The same codes as float32 [N, K], for a scale that already broadcasts to [N, K]."""
    if not scheme.has_zero:
        return torch.where(w_NK >= 0, 1.0, -1.0)
    return (w_NK / divisor(scale_expanded)).round_().clamp_(-1, 1)


def away_from_thresholds(w_NK: Tensor, scale: Tensor, scheme: WeightScheme, margin: float) -> Tensor:
    """Latents at least `margin` scales away from where their code would change, float32 [N, K]; codes stay.

    Training through an estimator leaves many latents oscillating about a threshold (arXiv 2203.11086). A next
    optimiser moves all of them at once, and as many codes flip. `margin` is below 0.5; a scale of 0 keeps its latents.
    """
    w_NK, signs = w_NK.detach().float(), torch.where(w_NK.detach() < 0, -1.0, 1.0)
    scales = expand_scale(scale.detach(), *w_NK.shape)
    if not scheme.has_zero:
        return torch.maximum(w_NK.abs(), margin * scales) * signs
    threshold, least = scales / 2, margin * scales
    side = torch.where(quantize(w_NK, scale, scheme) == 0, -1.0, 1.0)
    is_near = (w_NK.abs() - threshold).abs() < least
    return torch.where(is_near, (threshold + side * least) * signs, w_NK)


def expand_scale(scale: Tensor, num_outputs: int, num_inputs: int) -> Tensor:
    """A scale of shape (1, 1), (N, 1) or (N, G) made broadcastable to [N, K]."""
    num_groups = scale.shape[1]
    if num_groups == 1:
        return scale
    assert scale.shape[0] == num_outputs
    assert num_inputs % num_groups == 0
    grouped = scale.unsqueeze(-1).expand(num_outputs, num_groups, num_inputs // num_groups)
    return grouped.reshape(num_outputs, num_inputs)


def select_scale(scale: Tensor, rows: Tensor) -> Tensor:
    """The scales of some rows (ids [T]) of a weight: (T, 1) or (T, G); one scale per tensor stays (1, 1)."""
    return scale if scale.shape == (1, 1) else scale.index_select(0, rows)


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """scale * codes as float32 [N, K]; exact, because a code is -1, 0 or +1."""
    return codes.to(torch.float32) * expand_scale(scale.float(), *codes.shape)


def _rounded(scale: Tensor, scheme: WeightScheme) -> Tensor:
    dtype = scheme.torch_scale_dtype
    return scale.float().clamp(min=torch.finfo(dtype).tiny).to(dtype).float()


def _require_storable(mean: Tensor, scheme: WeightScheme) -> None:
    limit = torch.finfo(scheme.torch_scale_dtype).max
    largest = float(mean.max())
    if not largest <= limit:
        raise ConversionError(
            f"a weight scale of {largest:.6g} cannot be stored as `weight.scale_dtype={scheme.scale_dtype}` "
            f"(largest value {limit:.6g}). Check the weights for damage, or set `weight.scale_dtype=float32`."
        )
