"""Latents whose codes make up for each other's errors: GPTQ (arXiv 2210.17323) on the grid of a scheme's codes.

With H = X^T X over calibration inputs and U the upper Cholesky factor of its inverse, column by column

    q_j = s codes(w_j / s)      e = (w_j - q_j) / U_jj      W_{:, j+1..} <- W_{:, j+1..} - e U_{j, j+1..}

so the columns to come take over what column j lost. Columns go in panels: rank-1 updates inside, one product after.
Where a group of inputs begins, its scale is fitted to the weights as they are by then.

How ours differs: the result is latents, not codes. A latent is the compensated weight at the moment it was quantised,
so its code is GPTQ's, while its distance from a threshold still says how sure that code is; |w| / s is cut at 2 (2^k
of k planes), because a latent that the compensation pushed further could never flip back. At the end all scales of a
row are solved for together (least squares in H, codes fixed), and latents move with their scale, which keeps the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.errors import ConversionError
from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import expand_scale, float_codes, round_scale

_PANEL_COLUMNS = 128
_LARGEST_RATIO = 2.0
_FARTHEST = 16.0  # a solved scale this far from the fitted one comes from a system that is nearly singular
_SOLVED_ROWS = 512  # rows whose G x G systems are in memory together


@torch.no_grad()
def error_feedback(
    weight_NK: Tensor, moments_KK: Tensor, scheme: WeightScheme, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Return latents float32 [N, K] and the scale float32 of `scheme.scale_shape(N, K)`.

    `moments_KK` is H, float [K, K]; `damping` is added to its diagonal, in units of the diagonal's mean.
    Raises ConversionError when H has no Cholesky factor.
    """
    weight = weight_NK.detach().float()
    moments = damped(moments_KK.float(), damping)
    latent, scale = _compensate(weight, inverse_factor(moments), moments.diagonal(), scheme)
    codes = float_codes(latent, expand_scale(scale, *weight.shape), scheme)
    fitted = _solve_scales(weight, codes, moments, scale, scheme)
    ratio = latent / expand_scale(scale, *weight.shape)
    largest = _LARGEST_RATIO * scheme.num_magnitudes
    return ratio.clamp(-largest, largest) * expand_scale(fitted, *weight.shape), fitted


def damped(moments: Tensor, damping: float) -> Tensor:
    """Return H over the mean of its diagonal, with `damping` added to that."""
    mean = moments.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    return moments / mean + damping * torch.eye(len(moments), device=moments.device)


def inverse_factor(moments: Tensor) -> Tensor:
    """U, upper triangular, with U^T U = H^-1; in float64, because H may be close to singular."""
    lower, failed = torch.linalg.cholesky_ex(moments.double())
    if int(failed):
        raise ConversionError(
            f"the second moments of the {len(moments)} inputs of a layer are not positive definite even damped. Raise "
            "`init.damping` (0.01 is usual) or `init.calibration_rows`."
        )
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()


def _compensate(weight: Tensor, factor: Tensor, importance: Tensor, scheme: WeightScheme) -> tuple[Tensor, Tensor]:
    """Walk over the panels; the work is transposed, [K, N], so that a column lies in one piece."""
    work = weight.t().contiguous()
    scale = fit_scale(weight, scheme, importance)
    panel = _panel_columns(scheme)
    for first in range(0, len(work), panel):
        last = min(first + panel, len(work))
        if scheme.granularity == "group":
            covered = slice(first // scheme.group_size, last // scheme.group_size)
            scale[:, covered] = fit_scale(work[first:last].t(), scheme, importance[first:last])
        expanded = expand_scale(scale, *weight.shape).expand_as(weight)[:, first:last].t()
        errors = _compensate_panel(work[first:last], factor[first:last, first:last], expanded, scheme)
        work[last:].addmm_(factor[first:last, last:].t(), errors, alpha=-1)
    return work.t().contiguous(), scale


def _compensate_panel(panel: Tensor, factor: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    """Quantise the columns of one panel [C, N] in turn, in place; return their errors [C, N]."""
    errors = torch.empty_like(panel)
    scale = scale.contiguous()
    for column in range(len(panel)):
        value = panel[column]
        quantised = scale[column] * float_codes(value, scale[column], scheme)
        errors[column] = (value - quantised) / factor[column, column]
        panel[column + 1 :].addr_(factor[column, column + 1 :], errors[column], alpha=-1)
    return errors


def _panel_columns(scheme: WeightScheme) -> int:
    """Whole groups, as near to 128 columns as they come."""
    if scheme.granularity != "group":
        return _PANEL_COLUMNS
    return scheme.group_size * max(1, _PANEL_COLUMNS // scheme.group_size)


def _solve_scales(weight: Tensor, codes: Tensor, moments: Tensor, scale: Tensor, scheme: WeightScheme) -> Tensor:
    """Minimise (w - s c) H (w - s c) over the scales of a row; a scale without a sound solution stays."""
    num_groups = scale.shape[1]
    rows = len(weight) if len(scale) == 1 else _SOLVED_ROWS
    solved = torch.empty_like(scale)
    for first in range(0, len(weight), rows):
        some = slice(first, first + rows)
        left, right = _normal_equations(weight[some], codes[some], moments, num_groups)
        if len(scale) == 1:
            left, right = left.sum(0, keepdim=True), right.sum(0, keepdim=True)
        ridge = 1e-6 * left.diagonal(dim1=1, dim2=2).mean(-1).clamp(min=1e-30)
        left = left + ridge[:, None, None] * torch.eye(num_groups, device=left.device)
        solved[some if len(scale) > 1 else slice(0, 1)] = torch.linalg.solve(left, right)
    sound = torch.isfinite(solved) & (solved > scale / _FARTHEST) & (solved < scale * _FARTHEST)
    return round_scale(torch.where(sound, solved, scale), scheme)


def _normal_equations(weight: Tensor, codes: Tensor, moments: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """A [R, G, G] with A_gg' = c_g H_gg' c_g', and b [R, G] = c_g H w, for rows of codes split into groups."""
    num_rows, num_inputs = weight.shape
    size = num_inputs // num_groups
    right = ((weight @ moments) * codes).reshape(num_rows, num_groups, size).sum(-1)
    left = torch.empty(num_rows, num_groups, num_groups, device=weight.device)
    for group in range(num_groups):
        part = slice(group * size, (group + 1) * size)
        seen = (codes[:, part] @ moments[part]) * codes
        left[:, group] = seen.reshape(num_rows, num_groups, size).sum(-1)
    return left, right
