"""From a micro-batch to its three token sums: both models forward, then `losses`, each term only where its weight asks.

Pure functions; the module adds the loop over micro-batches, the divisor and the processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.train import losses
from bitnet_train.train.losses import LossConfig

Batch = dict[str, Tensor]
TERMS = ("kl", "ce", "hidden")
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


def micro_batches(rows: Batch, micro_rows: int) -> Iterator[Batch]:
    """Yield consecutive pieces of at most `micro_rows` rows."""
    for start in range(0, len(rows["input_ids"]), micro_rows):
        yield {name: values[start : start + micro_rows] for name, values in rows.items()}


def outputs(student: nn.Module, teacher: nn.Module | None, piece: Batch, loss: LossConfig) -> tuple[Any, Any]:
    """Return the Hugging Face outputs of student and teacher; None for a teacher that no term needs."""
    inputs = {name: piece[name] for name in MODEL_INPUTS if name in piece}
    options = {"use_cache": False, "output_hidden_states": loss.hidden > 0}
    with torch.no_grad():
        told = teacher(**inputs, **options) if teacher is not None and loss.needs_teacher else None
    return student(**inputs, **options), told


def token_sums(student: Any, teacher: Any, labels_BL: Tensor, loss: LossConfig) -> dict[str, Tensor]:
    """Return every term of `TERMS` as a scalar sum over trained tokens; a term of weight 0 is 0 and costs nothing."""
    terms: dict[str, Tensor] = dict.fromkeys(TERMS, torch.zeros((), device=labels_BL.device))
    if loss.kl > 0:
        terms["kl"] = losses.kl(student.logits, teacher.logits, labels_BL, loss.temperature)
    if loss.ce > 0:
        terms["ce"] = losses.ce(student.logits, labels_BL)
    if loss.hidden > 0:  # entry 0 of the states is the embedding, before any block
        terms["hidden"] = losses.hidden(student.hidden_states[1:], teacher.hidden_states[1:], labels_BL)
    return terms


def weighted(terms: dict[str, Any], loss: LossConfig, balance: Any) -> Any:
    """Return the weighted sum of the terms, tensors or numbers; `balance` scales the hidden term."""
    return loss.kl * terms["kl"] + loss.ce * terms["ce"] + loss.hidden * balance * terms["hidden"]


def measure_balance(terms: dict[str, Tensor], loss: LossConfig, parameters: Sequence[Tensor]) -> Tensor:
    """Compare the gradient norms of `hidden` and of the rest over `parameters`: the factor of `balance_factor`."""
    others = weighted(terms | {"hidden": torch.zeros_like(terms["hidden"])}, loss, 0.0)
    return losses.balance_factor(_gradient_norm(others, parameters), _gradient_norm(terms["hidden"], parameters))


def _gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return nn.utils.get_total_norm([grad for grad in grads if grad is not None])
