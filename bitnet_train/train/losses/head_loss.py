"""Losses over logits that are never held whole: the head's products and the walk of `logit_loss`, some rows at a time.

```
logits = h W^T + b        h [R,D] the states after the last norm, W [V,D]
g = the gradient by the logits, written over them (`logit_loss`)
dh = g W        dW = sum over chunks of g^T h        db = sum of g over the rows
```

With a vocabulary of 49,152 the logits of 512 tokens are 100 MB, and so are the teacher's and the gradient. Here as many
rows are held as the products need to run at full speed, and only rows that are trained: of a chat, the answers. The
gradient is made in the forward pass, as there, and the backward pass hands over dh, dW and db.

The products run in the dtype of autocast, else in that of the states, as the head's own would; dW is summed over the
chunks in the dtype of W. Of a head that is frozen no dW is made.

They are floats however the 1-bit linears multiply. g has a few large entries in a row and tens of thousands of small
ones with much in common: rounded to 8 bits, dh loses its direction. In 16 bits, as logits need too, each is two int8
products, which take as long as one of floats; and dW in int8 would hold, but is not faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bitnet_train.model.quantized_linear import product_dtype
from bitnet_train.train.losses.logit_loss import (
    GPU_CHUNK_BYTES,
    IGNORED,
    LOGIT_TERMS,
    Divergence,
    LogitWeights,
    Softmax,
    Target,
    TeacherLogits,
    row_chunks,
    times,
    walk,
    weighted_sum,
)

CPU_CHUNK_ROWS = 256
"""Fewer cost time, as dW is gone over once a chunk; more cost memory."""
OUTPUTS = 8192
"""Of the vocabulary, in what is made of a part of it at a time."""


@dataclass(frozen=True)
class TeacherStates:
    """The teacher's states [R,D] after its last norm, and the head that makes logits of them; a `Target`."""

    states: Tensor
    head: nn.Module

    @torch.no_grad()
    def at(self, index: slice | Tensor) -> TeacherLogits:
        """Return the logits of these rows."""
        states, head = self.states[index], self.head
        dtype = product_dtype(states)
        if type(head) is not nn.Linear or head.weight.dtype == dtype:
            return TeacherLogits(head(states))
        return TeacherLogits(_narrow_linear(states, head.weight, head.bias, dtype))

    def divergence(self, index: slice | Tensor, student: Softmax, weights: LogitWeights, grad: bool) -> Divergence:
        """Compare with the logits of the rows `index`."""
        return self.at(index).divergence(slice(None), student, weights, grad)


def head_loss(
    states_BLD: Tensor,
    head: nn.Linear,
    teacher: Target | None,
    targets_BL: Tensor,
    weights: LogitWeights,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return what `logit_loss` does of the logits `head(states)`, differentiable in states, weight and bias.

    Where nothing asks for a gradient the head itself is called, which may compute otherwise in evaluation.
    """
    inputs = (states_BLD, head.weight, head.bias)
    grad = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
    return _HeadLoss.apply(*inputs, head, teacher, targets_BL, weights, scale, grad)


def held_rows(num_rows: int, num_outputs: int, device: torch.device) -> int:
    """Return how many rows of logits are held at once, of so many."""
    return min(num_rows, CPU_CHUNK_ROWS if device.type == "cpu" else max(1, GPU_CHUNK_BYTES // (4 * num_outputs)))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states_BLD: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: nn.Linear,
        teacher: Target | None,
        targets_BL: Tensor,
        weights: LogitWeights,
        scale: float,
        grad: bool,
    ) -> tuple[Tensor, Tensor]:
        states_RD, targets_R = states_BLD.flatten(0, -2), targets_BL.flatten()
        products = _Products(states_RD, weight, bias, ctx.needs_input_grad[:3]) if grad else None

        def walk_rows(index: slice | Tensor) -> Tensor:
            """Return the sums of some rows [3]; a function, so that their logits are gone before the next ones come."""
            target, states_CD = None if teacher is None else teacher.at(index), states_RD[index]
            logits_CV = head(states_CD) if products is None else products.logits(states_CD)
            with torch.autocast(logits_CV.device.type, enabled=False):
                gradient_CV = None if products is None else logits_CV
                sums = walk(logits_CV, target, targets_R[index], weights, scale, gradient_CV)
                if products is not None:
                    products.add(index, states_CD, logits_CV)
            return sums

        rows_M = (targets_R != IGNORED).nonzero().flatten()
        num_rows = held_rows(len(targets_R), len(weight), weight.device)
        wide = torch.promote_types(states_BLD.dtype, torch.float32)
        nothing = torch.zeros(len(LOGIT_TERMS), dtype=wide, device=states_BLD.device)
        sums = torch.stack([nothing, *map(walk_rows, row_chunks(rows_M, num_rows))]).sum(0)
        if products is not None:
            ctx.save_for_backward(*products.gradients(states_BLD.shape, weight))
        ctx.mark_non_differentiable(sums)
        return scale * weighted_sum(sums, weights), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (*times(ctx.saved_tensors, incoming[0]), *[None] * 6)


class _Products:
    """The three products of a head, some rows at a time; what no gradient is asked of is not made."""

    def __init__(self, states_RD: Tensor, weight: Tensor, bias: Tensor | None, needs: tuple[bool, ...]) -> None:
        self._dtype = product_dtype(states_RD)
        self._weight, self._bias = weight.to(self._dtype), None if bias is None else bias.to(self._dtype)
        self._by_states = torch.zeros_like(states_RD) if needs[0] else None
        self._needs_weight = needs[1]
        self._by_weight: Tensor | None = None
        self._by_bias = torch.zeros_like(bias) if bias is not None and needs[2] else None

    def logits(self, states_CD: Tensor) -> Tensor:
        """Return the logits [C,V] of some rows."""
        return F.linear(states_CD.to(self._dtype), self._weight, self._bias)

    def add(self, index: slice | Tensor, states_CD: Tensor, gradient_CV: Tensor) -> None:
        """Take in the gradient by the logits of the rows `index`."""
        if self._by_states is not None:
            self._by_states[index] = gradient_CV.mm(self._weight).to(self._by_states.dtype)
        if self._needs_weight:
            self._by_weight = _plus_product(self._by_weight, gradient_CV.t(), states_CD.to(self._dtype))
        if self._by_bias is not None:
            self._by_bias += gradient_CV.sum(0)

    def gradients(self, shape: torch.Size, weight: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by states of this shape, weight and bias."""
        by_weight = self._by_weight
        if self._needs_weight and by_weight is None:
            by_weight = torch.zeros_like(weight)
        by_states = None if self._by_states is None else self._by_states.view(shape)
        return by_states, by_weight, self._by_bias


def _narrow_linear(x_CD: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return what a linear does in a narrower type, its weight copied a part at a time."""
    y_CV = torch.empty(len(x_CD), len(weight), dtype=dtype, device=x_CD.device)
    for rows in _parts(len(weight)):
        part = None if bias is None else bias[rows].to(dtype)
        y_CV[:, rows] = F.linear(x_CD.to(dtype), weight[rows].to(dtype), part)
    return y_CV


def _parts(num_outputs: int) -> Iterator[slice]:
    return (slice(first, min(first + OUTPUTS, num_outputs)) for first in range(0, num_outputs, OUTPUTS))


def _plus_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return `total` with left right added to it, or their product where there is none yet.

    It is float32 where the factors are narrower: some rows at a time, then.
    """
    wide = torch.promote_types(left.dtype, torch.float32)
    if left.dtype == wide:
        return left.mm(right) if total is None else total.addmm_(left, right)
    made = torch.empty(len(left), right.shape[1], dtype=wide, device=left.device) if total is None else total
    for rows in _parts(len(made)):
        product = left[rows].mm(right)
        made[rows].copy_(product) if total is None else made[rows].add_(product)
    return made
