"""The distance of L2-normalised hidden states with its gradient, in few passes over them.

With s and t the states of a token, and c the cosine of the angle between them:

    || s/|s| - t/|t| ||^2 = 2 - 2c        gradient  2 (c s/|s|^2 - t/(|s| |t|))

So the forward pass needs three sums a token and the backward pass writes the gradient as one combination of s and t;
no normalised copy of either is made. The sums are float32, or float64 where the states are. There is no gradient of
the gradient, and none for the teacher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SMALLEST = 1e-12  # of a norm, as in torch.nn.functional.normalize


def hidden_distance(student_BLH: Tensor, teacher_BLH: Tensor, trained_BL: Tensor) -> Tensor:
    """Sum over the trained tokens (bool [B,L]) of the squared distance of unit states: a scalar, differentiable once.

    Both states are [B,L,H] in any float dtype. An element of the sum is exact to a few units of 1e-7 (float32).
    """
    distance = _HiddenDistance.apply(student_BLH, teacher_BLH, trained_BL)
    assert isinstance(distance, Tensor)
    return distance


class _HiddenDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, trained: Tensor) -> Tensor:
        s, t = _wide(student), _wide(teacher)
        s_norm, t_norm = (torch.linalg.vector_norm(x, dim=-1).clamp_min_(_SMALLEST) for x in (s, t))
        cosine = torch.linalg.vecdot(s, t) / (s_norm * t_norm)
        ctx.save_for_backward(student, teacher, trained, s_norm, t_norm, cosine)
        return torch.where(trained, 2 - 2 * cosine, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        student, teacher, trained, s_norm, t_norm, cosine = ctx.saved_tensors
        share = 2 * grad_outputs[0] * trained / s_norm
        grad = _wide(student) * (share * cosine / s_norm).unsqueeze(-1)
        grad.addcmul_(_wide(teacher), (share / t_norm).unsqueeze(-1), value=-1)
        _clear(grad, ~trained)  # not a product: a padded position may hold anything
        return grad.to(student.dtype), None, None


def _clear(grad_BLH: Tensor, which_BL: Tensor) -> None:
    """Set the gradients of some tokens to 0: by their numbers on a CPU, where a mask is held against every element."""
    if grad_BLH.device.type == "cpu" and grad_BLH.is_contiguous():
        numbers = which_BL.flatten().nonzero().flatten()
        grad_BLH.view(-1, grad_BLH.shape[-1]).index_fill_(0, numbers, 0.0)
    else:
        grad_BLH[which_BL] = 0.0


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
