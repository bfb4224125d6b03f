"""Batches dealt out to the processes that measure together, and what each made of them put together again.

Each measures every n-th batch of the same list. What a batch comes to is passed on by itself, and all processes add it
up in the order of the list: so the sums, floats too, are those of one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, TypeVar

from torch import distributed

Item = TypeVar("Item")
_NONE: Any = object()


@dataclass(frozen=True)
class Dealing:
    """Which process this is, and of how many."""

    rank: int = 0
    number: int = 1

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's items."""
        return items[self.rank :: self.number]

    def gathered(self, made: Sequence[Item]) -> list[Item]:
        """Return what all processes made of their own items, in the order of all; they have to ask together."""
        if self.number == 1:
            return list(made)
        found: list[Any] = [None] * self.number
        distributed.all_gather_object(found, list(made))
        return [item for item in chain(*zip_longest(*found, fillvalue=_NONE)) if item is not _NONE]


@contextmanager
def together() -> Iterator[Dealing]:
    """Connect the processes that torchrun started, as its variables say; they part with the block."""
    distributed.init_process_group("gloo")
    try:
        yield Dealing(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
