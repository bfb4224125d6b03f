"""Latent weights to codes and scales, and back.

    binary    codes = where(w >= 0, +1, -1)                  arXiv 2310.11453, but sign(0) = +1: there is no third value
    ternary   codes = clamp(round(w / scale), -1, +1)        arXiv 2402.17764, round half to even
    k planes  codes = 2 clamp(floor(w / (2 scale)), -2^(k-1), 2^(k-1) - 1) + 1: the nearest odd integer, for k = 1 the
              sign. Equal steps without a zero, as the 2 bits of ParetoQ (arXiv 2502.02631)
    scale     mean|w| over the tensor, the row or the group, with several planes divided by `scales_per_mean`, which
              fits them to normal weights (1.60 with two, 2.72 with three, 4.76 with four); rounded to `scale_dtype`

Scales never fall below the smallest *normal* number of `scale_dtype` (2^-14 for float16): a subnormal scale would
keep only a few bits, and a zero scale would erase the sign. An all-zero row therefore becomes a tiny constant, not 0.
Only a learnable scale of exactly 0, which comes from a file of 1-bit weights, stays 0. Its codes are those of latents
in units of the smallest normal number, as `divisor` says: of ternary weights the signs, with sign(0) = 0.
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
    """Scale mean|w| / scales_per_mean, float32 of `scheme.scale_shape(N, K)`, with values exact in `scale_dtype`.

    No gradient flows through it. Raises ConversionError when a mean is not finite or above the largest value of
    `scale_dtype`, to which the scale of the last plane goes; `checked=False` leaves that check out (it waits for the
    device) and then such a scale is inf or NaN.
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
        return _rounded(mean / scheme.scales_per_mean, scheme)


def round_scale(scale: Tensor, scheme: WeightScheme) -> Tensor:
    """A learnable float32 scale, rounded to `scale_dtype`: 0, or at least its smallest normal; identity gradient."""
    value = scale.detach()
    return straight_through(scale, torch.where(value == 0, 0.0, _rounded(value, scheme)))


def divisor(scale: Tensor) -> Tensor:
    """What latent weights are divided by: the float32 scale, or `SMALLEST_SCALE` where it is 0, so that 0 / 0 is 0."""
    return scale.clamp(min=SMALLEST_SCALE)


def quantize(w_NK: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    """Codes int8 [N, K] of the scheme's set (`scheme.CODES`). `scale` is float32 as `absmean_scale` gives."""
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
    if scheme.code_set == "binary":
        return (w_NK >= 0).to(torch.int8).mul_(2).sub_(1)
    groups = w_NK.reshape(len(w_NK), scale.shape[1], -1)
    return _nearest_codes(groups, scale.unsqueeze(-1), scheme).to(torch.int8).reshape(w_NK.shape)


def float_codes(w_NK: Tensor, scale_expanded: Tensor, scheme: WeightScheme) -> Tensor:
    """The same codes as float32 [N, K], for a scale that already broadcasts to [N, K]."""
    if scheme.code_set == "binary":
        return torch.where(w_NK >= 0, 1.0, -1.0)
    return _nearest_codes(w_NK, divisor(scale_expanded), scheme)


def _nearest_codes(w: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    if scheme.has_zero:
        return (w / scale).round_().clamp_(-1, 1)
    most = scheme.num_magnitudes
    return (w / (2 * scale)).floor_().clamp_(-most, most - 1).mul_(2).add_(1)


def away_from_thresholds(w_NK: Tensor, scale: Tensor, scheme: WeightScheme, margin: float) -> Tensor:
    """Latents at least `margin` scales away from where their code would change, float32 [N, K]; codes stay.

    Training through an estimator leaves many latents oscillating about a threshold (arXiv 2203.11086). A next
    optimiser moves all of them at once, and as many codes flip. `margin` is below 0.5; a scale of 0 keeps its latents.
    """
    w_NK, signs = w_NK.detach().float(), torch.where(w_NK.detach() < 0, -1.0, 1.0)
    scales = expand_scale(scale.detach(), *w_NK.shape)
    if scheme.code_set == "binary":
        return torch.maximum(w_NK.abs(), margin * scales) * signs
    if not scheme.has_zero:
        return _away_from_even_multiples(w_NK, scales, scheme, margin)
    threshold, least = scales / 2, margin * scales
    side = torch.where(quantize(w_NK, scale, scheme) == 0, -1.0, 1.0)
    is_near = (w_NK.abs() - threshold).abs() < least
    return torch.where(is_near, (threshold + side * least) * signs, w_NK)


def _away_from_even_multiples(w_NK: Tensor, scales: Tensor, scheme: WeightScheme, margin: float) -> Tensor:
    """Keep each latent `margin` scales inside the two thresholds about its code, where there are thresholds."""
    codes, outermost = float_codes(w_NK, scales, scheme), 2 * scheme.num_magnitudes - 1
    lowest = torch.where(codes == -outermost, -torch.inf, (codes - 1 + margin) * scales)
    highest = torch.where(codes == outermost, torch.inf, (codes + 1 - margin) * scales)
    return torch.where(scales > 0, w_NK.maximum(lowest).minimum(highest), w_NK)


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
    """scale * codes as float32 [N, K], rounded once: exact for codes -1, 0, +1, and for all of a float16 scale."""
    return codes.to(torch.float32) * expand_scale(scale.float(), *codes.shape)


def _rounded(scale: Tensor, scheme: WeightScheme) -> Tensor:
    dtype = scheme.torch_scale_dtype
    return scale.float().clamp(min=torch.finfo(dtype).tiny).to(dtype).float()


def _require_storable(mean: Tensor, scheme: WeightScheme) -> None:
    limit = torch.finfo(scheme.torch_scale_dtype).max
    largest = float(mean.max()) * scheme.num_magnitudes / scheme.scales_per_mean  # of the last plane
    if not largest <= limit:
        raise ConversionError(
            f"a weight scale of {largest:.6g} cannot be stored as `weight.scale_dtype={scheme.scale_dtype}` "
            f"(largest value {limit:.6g}). Check the weights for damage, or set `weight.scale_dtype=float32`."
        )
