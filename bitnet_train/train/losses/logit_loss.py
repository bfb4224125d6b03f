"""Losses over logits, with their gradient, in one walk over the rows.

Per trained row, with q, p the softmax of student and teacher logits over T, and d = log p - log q:

```
kl          T^2 sum_v p d           gradient  T (q - p)                forward KL, Hinton (arXiv 1503.02531)
reverse_kl  T^2 r, r = -sum_v q d   gradient  -T q (d + r)             mode-seeking, MiniLLM (arXiv 2306.08543)
ce          -log q[next token]      gradient  q - 1[v = next token]    always at T = 1
```

A vocabulary of 49,152 makes these sums the largest tensors of a step, and passing over them costs more than the
arithmetic. So the walk takes as many rows as stay near a core (on a GPU, as many as keep it busy), makes every term
that is on from one softmax per model, and writes the gradient at once, in the student's type. The backward pass hands
that gradient over: nothing is computed twice, and no second copy of all logits exists in a wider type. The divisor of
the loss is given as `scale`, and is applied before the gradient is rounded. Where the head is a plain linear, not even
the logits are held whole: `head_loss`.

The arithmetic is float32, or float64 where the logits are float64. There is no gradient of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGIT_TERMS = ("kl", "reverse_kl", "ce")
IGNORED = -100  # the label of a position that is not trained, Hugging Face's convention
CPU_CHUNK_BYTES = 1 << 20  # of logits in the wide type: four such buffers, in caches of 1 MiB a core, measured best
GPU_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class LogitWeights:
    """The weight of each term, and the temperature of both divergences."""

    kl: float = 0.0
    reverse_kl: float = 0.0
    ce: float = 0.0
    temperature: float = 1.0


class Softmax(NamedTuple):
    """A chunk of logits over T [C,V], their softmax [C,V], and the logarithm of its denominator [C,1]."""

    logits: Tensor
    probabilities: Tensor
    log_denominator: Tensor

    @classmethod
    def of(cls, logits_CV: Tensor) -> Softmax:
        """Return the softmax; the likeliest entry p gives log denominator = its logit - log p, well conditioned."""
        probabilities = logits_CV.softmax(-1)
        largest = probabilities.amax(-1, keepdim=True)
        return cls(logits_CV, probabilities, logits_CV.amax(-1, keepdim=True) - largest.log())


class Divergence(NamedTuple):
    """Sums of kl and reverse_kl over a chunk, and the gradient [C,V] of their weighted sum by the student's logits."""

    kl: Tensor
    reverse_kl: Tensor
    gradient: Tensor | None


class Target(Protocol):
    """What the student is compared with, by row of the flattened logits."""

    def at(self, index: slice | Tensor) -> Target:
        """Return what these rows are compared with, counted from 0."""
        ...

    def divergence(self, index: slice | Tensor, student: Softmax, weights: LogitWeights, grad: bool) -> Divergence:
        """Compare the rows `index` with `student`, a chunk of as many rows."""
        ...


@dataclass(frozen=True)
class TeacherLogits:
    """All logits [R,V] of the teacher."""

    logits: Tensor

    def at(self, index: slice | Tensor) -> TeacherLogits:
        """Return these rows."""
        return TeacherLogits(self.logits[index])

    def divergence(self, index: slice | Tensor, student: Softmax, weights: LogitWeights, grad: bool) -> Divergence:
        """Compare with the teacher's softmax at the same temperature."""
        teacher = Softmax.of(_divided(self.logits[index].to(student.logits.dtype), weights.temperature))
        ratio = teacher.logits - student.logits
        ratio.add_(student.log_denominator - teacher.log_denominator)
        forward, backward = torch.zeros_like(student.log_denominator), torch.zeros_like(student.log_denominator)
        if weights.kl > 0:
            forward = (teacher.probabilities * ratio).sum(-1, keepdim=True)
        if weights.reverse_kl > 0:
            backward = -(student.probabilities * ratio).sum(-1, keepdim=True)
        square = weights.temperature**2
        gradient = _divergence_gradient(student, teacher, ratio.add_(backward), weights) if grad else None
        return Divergence(square * forward.sum(), square * backward.sum(), gradient)


def logit_loss(
    student_BLV: Tensor, teacher: Target | None, targets_BL: Tensor, weights: LogitWeights, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return (`scale` * the weighted sum of the terms, differentiable; the plain sum of each term [3], detached).

    student_BLV: logits of any float type. targets_BL: int64, the next token of every position, `IGNORED` where it is
    not trained. Sums are in nats, by the order of `LOGIT_TERMS`; a term of weight 0 is 0 and costs nothing.
    """
    grad = torch.is_grad_enabled() and student_BLV.requires_grad
    return _LogitLoss.apply(student_BLV, teacher, targets_BL, weights, scale, grad)


class _LogitLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_BLV: Tensor,
        teacher: Target | None,
        targets_BL: Tensor,
        weights: LogitWeights,
        scale: float,
        grad: bool,
    ) -> tuple[Tensor, Tensor]:
        logits_RV = student_BLV.flatten(0, -2)
        gradient_RV = torch.empty_like(logits_RV, memory_format=torch.contiguous_format) if grad else None
        with torch.autocast(student_BLV.device.type, enabled=False):
            sums = walk(logits_RV, teacher, targets_BL.flatten(), weights, scale, gradient_RV)
            loss = scale * weighted_sum(sums, weights)
        if gradient_RV is not None:
            ctx.save_for_backward(gradient_RV.view(student_BLV.shape))
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return (*times([gradient], incoming[0]), *[None] * 5)


def times(gradients: Iterable[Tensor | None], factor: Tensor) -> tuple[Tensor | None, ...]:
    """Return gradients times a factor of no dimension, which is 1 unless a loss is scaled."""
    is_one = factor.device.type == "cpu" and float(factor) == 1.0  # elsewhere the question waits for the device
    return tuple(g if g is None or is_one else g * factor.to(g.dtype) for g in gradients)


def weighted_sum(sums: Tensor, weights: LogitWeights) -> Tensor:
    """Return the weighted sum of the terms [3]."""
    return torch.stack([getattr(weights, term) * sums[i] for i, term in enumerate(LOGIT_TERMS)]).sum()


def walk(
    logits_RV: Tensor,
    teacher: Target | None,
    targets_R: Tensor,
    weights: LogitWeights,
    scale: float,
    gradient_RV: Tensor | None,
) -> Tensor:
    """Return the sums of the terms [3]; fill `gradient_RV`, with zeros where a row is not trained.

    The gradient may lie where the logits do.
    """
    wide = torch.promote_types(logits_RV.dtype, torch.float32)
    trained = targets_R != IGNORED
    if gradient_RV is not None:
        gradient_RV.index_fill_(0, (~trained).nonzero().flatten(), 0.0)  # a mask would be held against every number

    @torch.no_grad()
    def walk_chunk(index: slice | Tensor) -> Tensor:
        logits_CV, targets_C = logits_RV[index].to(wide), targets_R[index]
        sums, gradient_CV = _chunk(logits_CV, teacher, index, targets_C, weights, gradient_RV is not None)
        if gradient_RV is not None:
            _write_scaled(gradient_CV, scale, gradient_RV, index)
        return sums

    nothing = torch.zeros(len(LOGIT_TERMS), dtype=wide, device=logits_RV.device)
    most_bytes = CPU_CHUNK_BYTES if logits_RV.device.type == "cpu" else GPU_CHUNK_BYTES
    num_rows = max(1, most_bytes // (logits_RV.shape[-1] * wide.itemsize))
    chunks = list(row_chunks(trained.nonzero().flatten(), num_rows))
    return torch.stack([nothing, *_map(walk_chunk, chunks, logits_RV.device)]).sum(0)


def _write_scaled(chunk_CV: Tensor, scale: float, gradient_RV: Tensor, index: slice | Tensor) -> None:
    """Set the rows `index` of the gradient to `scale` times the chunk, in one pass where nothing is rounded."""
    if isinstance(index, slice) and gradient_RV.dtype == chunk_CV.dtype:
        torch.mul(chunk_CV, scale, out=gradient_RV[index])
    else:
        gradient_RV[index] = chunk_CV.mul_(scale).to(gradient_RV.dtype)


def _map(call: Callable[[slice | Tensor], Tensor], chunks: list[slice | Tensor], device: torch.device) -> list[Tensor]:
    """Return `call` of every chunk, in order; on a CPU each of torch's threads walks over chunks of its own.

    Shared by threads, the operations on a chunk would be too short: with a barrier after each, a thread that lost its
    core to another process holds up all. So the result is also the same for any number of threads.
    """
    num_threads = torch.get_num_threads()
    if device.type != "cpu" or min(num_threads, len(chunks)) < 2:
        return [call(chunk) for chunk in chunks]
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, chunks))
    finally:
        torch.set_num_threads(num_threads)  # the number is kept per thread, but MKL's for the whole process


def row_chunks(rows_M: Tensor, num_rows: int) -> Iterator[slice | Tensor]:
    """Yield the numbers of rows a chunk at a time, as a slice where they follow each other: a slice copies nothing."""
    numbers = rows_M.tolist()
    for start in range(0, len(numbers), num_rows):
        part = numbers[start : start + num_rows]
        follow = part[-1] - part[0] + 1 == len(part)
        yield slice(part[0], part[-1] + 1) if follow else rows_M[start : start + num_rows]


def _chunk(
    logits_CV: Tensor,
    teacher: Target | None,
    index: slice | Tensor,
    targets_C: Tensor,
    weights: LogitWeights,
    grad: bool,
) -> tuple[Tensor, Any]:
    """Return the sums of a chunk [3] and, if asked, its gradient [C,V]."""
    kl = reverse_kl = ce = torch.zeros((), dtype=logits_CV.dtype, device=logits_CV.device)
    student, gradient_CV = None, None
    if teacher is not None and weights.kl + weights.reverse_kl > 0:
        student = Softmax.of(_divided(logits_CV, weights.temperature))
        kl, reverse_kl, gradient_CV = teacher.divergence(index, student, weights, grad)
    if weights.ce > 0:
        student = student if student is not None and weights.temperature == 1.0 else Softmax.of(logits_CV)
        ce, gradient_CV = _cross_entropy(student, targets_C, weights.ce, gradient_CV, grad)
    return torch.stack([kl, reverse_kl, ce]), gradient_CV


def _cross_entropy(
    student: Softmax, targets_C: Tensor, weight: float, gradient_CV: Tensor | None, grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the sum over the chunk, and `gradient_CV` with the weighted gradient added."""
    rows = torch.arange(len(targets_C), device=targets_C.device)
    ce = (student.log_denominator.flatten() - student.logits[rows, targets_C]).sum()
    if not grad:
        return ce, None
    added = student.probabilities * weight
    added[rows, targets_C] -= weight
    return ce, added if gradient_CV is None else gradient_CV.add_(added)


def _divergence_gradient(student: Softmax, teacher: Softmax, offset_ratio: Tensor, weights: LogitWeights) -> Tensor:
    """Return T times the weighted gradients of the table above; `offset_ratio` is d + r."""
    forward, backward = weights.temperature * weights.kl, weights.temperature * weights.reverse_kl
    if backward == 0:
        gradient = student.probabilities - teacher.probabilities
        return gradient if forward == 1.0 else gradient.mul_(forward)
    gradient = offset_ratio.mul_(-backward).add_(forward).mul_(student.probabilities)
    return gradient.sub_(teacher.probabilities, alpha=forward)


def _divided(logits_CV: Tensor, temperature: float) -> Tensor:
    return logits_CV if temperature == 1.0 else logits_CV / temperature
