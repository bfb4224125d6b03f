"""A user's own loader in the place of `BitDataModule`: gone round as often as the steps need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule

from bitnet_train.errors import DataError

_NONE = "The loader has no batch. Give it rows, or a smaller `batch_size` where it drops the last one."
_NO_MORE = (
    "The loader has no batch when it is gone through again: an iterator is used up after one pass. Give the "
    "`DataLoader` or the list itself, or fewer `steps`."
)


class GivenLoader(LightningDataModule):
    """Batches of any iterable that can be gone through again: a `DataLoader`, a list.

    A run that is continued leaves out the batches that it has read. A loader that shuffles gives others the second time
    unless its generator has a seed.
    """

    def __init__(self, train: Iterable[Any], held_out: Iterable[Any] = ()) -> None:
        super().__init__()
        self.train, self.held_out = train, held_out

    def train_dataloader(self) -> Iterable[Any]:
        """Return the batches without end, from the step on that the run has reached."""
        step = 0 if self.trainer is None else getattr(self.trainer.lightning_module, "step", 0)
        return _Round(self.train, step)

    def val_dataloader(self) -> Any:
        """Return the held-out batches."""
        return self.held_out


class _Round:
    """The batches of a loader, over and over, without the first `num_read`."""

    def __init__(self, batches: Iterable[Any], num_read: int) -> None:
        self._batches, self._num_read = batches, num_read

    def __iter__(self) -> Iterator[Any]:
        num_seen = 0
        while True:
            before = num_seen
            for batch in self._batches:
                num_seen += 1
                if num_seen > self._num_read:
                    yield batch
            if num_seen == before:
                raise DataError(_NO_MORE if before else _NONE)
