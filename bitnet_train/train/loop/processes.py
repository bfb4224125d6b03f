"""What one process of a run has to do with the others: sums over all, rows of its own, gradients that wait.

Of a run in one process all of it is nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from bitnet_train.train.losses.composition import Batch


class Processes:
    """The processes of a Trainer's run, as one of them sees them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def number(self) -> int:
        """How many there are."""
        return self._trainer.world_size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of what all of them give; each gets it."""
        return self._trainer.strategy.reduce(values, reduce_op="sum") if self.number > 1 else values

    def own_rows(self, batch: Batch) -> Batch:
        """Return every `number`-th row: validation loaders give all rows to every process.

        Each has equally many, for a model that is spread is gathered by all together: a row of which no token counts
        makes up for one that is lacking.
        """
        num_rows, rank = len(batch["labels"]), self._trainer.global_rank
        own = {name: values[rank :: self.number] for name, values in batch.items()}
        if rank < num_rows % self.number or num_rows % self.number == 0:
            return own
        further = {name: values[:1] for name, values in batch.items()}
        further["labels"] = torch.full_like(further["labels"], -100)
        return {name: torch.cat([values, further[name]]) for name, values in own.items()}

    def unsynced(self) -> AbstractContextManager[Any]:
        """Let a backward pass keep its gradients to itself; a later one sums them over the processes."""
        block = getattr(self._trainer.strategy, "block_backward_sync", None)
        return block() if block is not None else nullcontext()
