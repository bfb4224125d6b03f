"""Figures of the held-out rows: sums over the tokens of all batches and processes, divided once at the end."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bitnet_train.errors import DataError
from bitnet_train.train.loop.held_out import MAX_NATS
from bitnet_train.train.loop.processes import Processes


class HeldOutSums:
    """Cross-entropy, KL divergence at T = 1 and count of the trained tokens of this process, float64 [3]."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device, dtype=torch.float64)

    def add(self, text: float, divergence: float, count: int) -> None:
        """Take in a micro-batch."""
        self._sums += torch.tensor([text, divergence, count], device=self._sums.device, dtype=torch.float64)

    def figures(self, processes: Processes, *, has_teacher: bool) -> dict[str, float]:
        """Return nats per token and perplexity over all processes, which have to ask together.

        Raises
        ------
        DataError
            When no token was trained.
        """
        total: Tensor = processes.sum(self._sums)
        text, divergence, count = total.tolist()
        if count == 0:
            raise DataError("The validation rows have no trained token: every label is -100. Check the masks.")
        nats = text / count
        figures = {"val_ce": nats, "val_perplexity": math.exp(min(nats, MAX_NATS)), "val_tokens": count}
        return figures | ({"val_kl": divergence / count} if has_teacher else {})
