"""From a micro-batch to its token sums: both models forward, then `token_losses`, each term only where its weight asks.

Pure functions; the module adds the loop over micro-batches, the divisor and the processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.train.data.packing import document_numbers
from bitnet_train.train.losses import token_losses
from bitnet_train.train.losses.attention_relation import RelationTaps
from bitnet_train.train.losses.head_loss import TeacherStates, head_loss
from bitnet_train.train.losses.logit_loss import LOGIT_TERMS, LogitWeights, Target, TeacherLogits, logit_loss
from bitnet_train.train.losses.plain_head import PlainHead, plain_head
from bitnet_train.train.losses.settings import WEIGHTS, LossConfig

Batch = dict[str, Tensor]
TERMS = WEIGHTS
LOGITS = "logits"  # all terms over logits together, where one term is named
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True)
class Heads:
    """The heads of both models, where their logits need not be made whole; the teacher's only beside the student's."""

    student: PlainHead | None = None
    teacher: PlainHead | None = None

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module | None) -> Heads:
        """Ask the models (`plain_head`)."""
        own = plain_head(student)
        return cls(own, None if own is None or teacher is None else plain_head(teacher))


@dataclass(frozen=True)
class TokenSums:
    """Sums over the trained tokens of a micro-batch.

    `logits` is the weighted sum of the terms over logits times the scale it was asked with, differentiable; `others`
    holds the plain sums of the further terms that are on, differentiable; `plain` [5] every sum of `TERMS`, detached.
    """

    logits: Tensor
    others: dict[str, Tensor]
    plain: Tensor


NO_HEADS = Heads()


def micro_batches(rows: Batch, micro_rows: int | None) -> Iterator[Batch]:
    """Yield consecutive pieces of at most `micro_rows` rows; None: all rows in one."""
    micro_rows = micro_rows or len(rows["input_ids"])
    for start in range(0, len(rows["input_ids"]), micro_rows):
        yield {name: values[start : start + micro_rows] for name, values in rows.items()}


def forward(model: nn.Module, piece: Batch, loss: LossConfig, head: PlainHead | None = None) -> Any:
    """Return the Hugging Face outputs of a model for a micro-batch; with its plain head those of its body alone."""
    inputs = {name: piece[name] for name in MODEL_INPUTS if name in piece}
    called = model if head is None else head.body
    return called(**inputs, use_cache=False, output_hidden_states=loss.hidden > 0)


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
    heads: Heads = NO_HEADS,
    target: Target | None = None,
    taps: RelationTaps | None = None,
) -> TokenSums:
    """Return the sums of every term of `TERMS`; a term of weight 0 is 0 and costs nothing.

    student, teacher: outputs of `forward` with these `heads`, None for a teacher that no term needs. target: what to
    compare logits with in place of the teacher's own. taps: what heard both models' projections, for the attention
    term.
    """
    labels_BL, zero = piece["labels"], torch.zeros((), device=piece["labels"].device)
    logits, over_logits, others = zero, torch.zeros(len(LOGIT_TERMS), device=zero.device), {}
    if loss.uses_logits:
        target = target or _target(teacher, heads)
        logits, over_logits = _over_logits(student, heads, target, labels_BL, token_losses.logit_weights(loss), scale)
    if loss.hidden > 0:
        assert teacher is not None
        # entry 0 of the states is the embedding, before any block
        others["hidden"] = token_losses.hidden(student.hidden_states[1:], teacher.hidden_states[1:], labels_BL)
    if taps is not None:
        others["attention"] = taps.divergence(token_losses.next_labels(labels_BL), visible(piece))
    plain = [*over_logits, *(others.get(name, zero) for name in TERMS[len(LOGIT_TERMS) :])]
    return TokenSums(logits, others, torch.stack([term.detach().double() for term in plain]))


def held_out_sums(student: Any, teacher: Any, labels_BL: Tensor, heads: Heads) -> tuple[float, float]:
    """Return the cross-entropy and the KL divergence at T = 1, 0 without a teacher, summed over the trained tokens."""
    weights = LogitWeights(kl=0.0 if teacher is None else 1.0, ce=1.0)
    divergence, _, text = _over_logits(student, heads, _target(teacher, heads), labels_BL, weights)[1].tolist()
    return text, divergence


def _target(teacher: Any, heads: Heads) -> Target | None:
    if teacher is None:
        return None
    if heads.teacher is None:
        return TeacherLogits(teacher.logits.flatten(0, -2))
    return TeacherStates(teacher.last_hidden_state.flatten(0, -2), heads.teacher.head)


def _over_logits(
    student: Any, heads: Heads, target: Target | None, labels_BL: Tensor, weights: LogitWeights, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the scaled sum of the terms over logits and the sum of each [3], as `logit_loss` does."""
    given = target, token_losses.next_labels(labels_BL), weights, scale
    if heads.student is None:
        return logit_loss(student.logits, *given)
    head = heads.student.head
    assert isinstance(head, nn.Linear)
    return head_loss(student.last_hidden_state, head, *given)


def total_loss(sums: TokenSums, loss: LossConfig, scale: float, balance: Mapping[str, Tensor]) -> Tensor:
    """Return what to call `backward` on: `scale` times the weighted sum of all terms."""
    total = sums.logits
    for name, term in sums.others.items():
        total = total + scale * getattr(loss, name) * balance[name] * term
    return total


def weighted(means: Mapping[str, float], loss: LossConfig, balance: Mapping[str, Tensor]) -> float:
    """Return the weighted sum of plain numbers, the figure that is shown as the loss."""
    return sum(getattr(loss, name) * float(balance.get(name, 1.0)) * means[name] for name in TERMS)


def one_term(sums: TokenSums, name: str) -> Tensor:
    """Return the sum of one further term, or for `LOGITS` the weighted and scaled sum of the terms over logits."""
    return sums.logits if name == LOGITS else sums.others[name]


def balances(norms: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Compare gradient norms of `one_term` over a whole step: per further term its `token_losses.balance_factor`."""
    others = {name: norm for name, norm in norms.items() if name != LOGITS}
    return {name: token_losses.balance_factor(norms[LOGITS], scale * norm) for name, norm in others.items()}
