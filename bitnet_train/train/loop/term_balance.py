"""How heavy the terms are that are not over logits, measured at the steps where `loss.balance_step` asks for it.

Each term's gradient norm is that over all that trains, of the whole step on all processes, however its rows are split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bitnet_train.train.loop.processes import Processes
from bitnet_train.train.loop.rng import seed_step
from bitnet_train.train.loop.spread import is_spread, whole
from bitnet_train.train.losses.composition import LOGITS, Batch, TokenSums, balances, one_term
from bitnet_train.train.losses.settings import LossConfig


class _Measured(Protocol):
    """What a module has whose terms are compared."""

    loss: LossConfig
    student: nn.Module
    seed: int
    step: int

    @property
    def global_rank(self) -> int: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def trainable(self) -> list[nn.Parameter]: ...
    def token_sums(self, piece: Batch, scale: float) -> TokenSums: ...


def is_due(loss: LossConfig, step: int) -> bool:
    """Whether the balances are measured before this step."""
    return bool(loss.balanced) and step in (0, loss.balance_step)


def measured_balances(module: _Measured, pieces: Sequence[Batch], scale: float) -> dict[str, Tensor]:
    """Return the balance of every term that has one, of the whole step; what is not finite is left out.

    Each term has a pass of its own over the step's rows, so that no more than one gradient is held, and draws the
    random numbers that the step itself will draw.
    """
    norms = {name: _gradient_norm(module, name, pieces, scale) for name in (LOGITS, *module.loss.balanced)}
    seed_step(module.seed, module.step, module.global_rank)
    return {name: found for name, found in balances(norms, scale).items() if bool(found.isfinite())}


def _gradient_norm(module: _Measured, term: str, pieces: Sequence[Batch], scale: float) -> Tensor:
    """Return the norm of the gradient of one term, summed over all rows of the step, those of all processes."""
    seed_step(module.seed, module.step, module.global_rank)
    trainable = module.trainable
    with module.processes.unsynced():
        for piece in pieces:
            one_term(module.token_sums(piece, scale), term).backward()
    grads = [parameter.grad for parameter in trainable if parameter.grad is not None]
    for parameter in trainable:
        parameter.grad = None
    if not is_spread(module.student):  # there the backward has summed them
        grads = [module.processes.sum(grad) for grad in grads]
    return whole(torch.nn.utils.get_total_norm(grads))
