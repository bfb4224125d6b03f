"""From a micro-batch to its token sums: both models forward, then `token_losses`, each term only where its weight asks.

Pure functions; the module adds the loop over micro-batches, the divisor and the processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.train.data.packing import document_numbers
from bitnet_train.train.losses import token_losses
from bitnet_train.train.losses.attention_relation import RelationTaps
from bitnet_train.train.losses.logit_loss import LOGIT_TERMS, Target, TeacherLogits, logit_loss
from bitnet_train.train.losses.settings import WEIGHTS, LossConfig

Batch = dict[str, Tensor]
TERMS = WEIGHTS
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True)
class TokenSums:
    """Sums over the trained tokens of a micro-batch.

    `logits` is the weighted sum of the terms over logits times the scale it was asked with, differentiable; `others`
    holds the plain sums of the further terms that are on, differentiable; `plain` [5] every sum of `TERMS`, detached.
    """

    logits: Tensor
    others: dict[str, Tensor]
    plain: Tensor


def micro_batches(rows: Batch, micro_rows: int) -> Iterator[Batch]:
    """Yield consecutive pieces of at most `micro_rows` rows."""
    for start in range(0, len(rows["input_ids"]), micro_rows):
        yield {name: values[start : start + micro_rows] for name, values in rows.items()}


def forward(model: nn.Module, piece: Batch, loss: LossConfig) -> Any:
    """Return the Hugging Face outputs of a model for a micro-batch."""
    inputs = {name: piece[name] for name in MODEL_INPUTS if name in piece}
    return model(**inputs, use_cache=False, output_hidden_states=loss.hidden > 0)


def visible(piece: Batch) -> Tensor | None:
    """Return what tokens may be related to: real ones, bool [B,L]; of packed rows their own document's, [B,L,L]."""
    if "position_ids" in piece:
        numbers_BL = document_numbers(piece["position_ids"])
        return numbers_BL[:, :, None] == numbers_BL[:, None, :]
    return piece["attention_mask"].bool() if "attention_mask" in piece else None


def token_sums(
    student: Any,
    teacher: Any,
    piece: Batch,
    loss: LossConfig,
    scale: float = 1.0,
    *,
    target: Target | None = None,
    taps: RelationTaps | None = None,
) -> TokenSums:
    """Return the sums of every term of `TERMS`; a term of weight 0 is 0 and costs nothing.

    student, teacher: outputs of `forward`, None for a teacher that no term needs. target: what to compare logits with
    in place of the teacher's own. taps: what heard both models' projections, for the attention term.
    """
    labels_BL, zero = piece["labels"], torch.zeros((), device=piece["labels"].device)
    logits, over_logits, others = zero, torch.zeros(len(LOGIT_TERMS), device=zero.device), {}
    if loss.uses_logits:
        if target is None and teacher is not None:
            target = TeacherLogits(teacher.logits.flatten(0, -2))
        targets_BL = token_losses.next_labels(labels_BL)
        logits, over_logits = logit_loss(student.logits, target, targets_BL, token_losses.logit_weights(loss), scale)
    if loss.hidden > 0:
        assert teacher is not None
        # entry 0 of the states is the embedding, before any block
        others["hidden"] = token_losses.hidden(student.hidden_states[1:], teacher.hidden_states[1:], labels_BL)
    if taps is not None:
        others["attention"] = taps.divergence(token_losses.next_labels(labels_BL), visible(piece))
    plain = [*over_logits, *(others.get(name, zero) for name in TERMS[len(LOGIT_TERMS) :])]
    return TokenSums(logits, others, torch.stack([term.detach().double() for term in plain]))


def total_loss(sums: TokenSums, loss: LossConfig, scale: float, balance: Mapping[str, Tensor]) -> Tensor:
    """Return what to call `backward` on: `scale` times the weighted sum of all terms."""
    total = sums.logits
    for name, term in sums.others.items():
        total = total + scale * getattr(loss, name) * balance[name] * term
    return total


def weighted(means: Mapping[str, float], loss: LossConfig, balance: Mapping[str, Tensor]) -> float:
    """Return the weighted sum of plain numbers, the figure that is shown as the loss."""
    return sum(getattr(loss, name) * float(balance.get(name, 1.0)) * means[name] for name in TERMS)


def measure_balance(sums: TokenSums, scale: float, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Compare gradient norms over `parameters`: per further term the factor of `token_losses.balance_factor`."""
    of_logits = _gradient_norm(sums.logits, parameters)
    return {
        name: token_losses.balance_factor(of_logits, scale * _gradient_norm(term, parameters))
        for name, term in sums.others.items()
    }


def _gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([grad for grad in grads if grad is not None])
