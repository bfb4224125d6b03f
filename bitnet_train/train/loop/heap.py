"""How far a heap grows under tensors that come and go: glibc's, as torch asks it for memory on a CPU.

torch takes each tensor from `posix_memalign`, which looks for `size + alignment + 32` bytes in one piece and gives back
what is over (`_int_memalign` in malloc.c of glibc 2.36). So the hole that a tensor leaves between two that stay is
never filled by one of the same size, only by a smaller one, and the heap grows instead, by some part of what a training
step keeps. An allocator that fills such holes spares it, as jemalloc does under `LD_PRELOAD`.

Here addresses are given out by the same rule, best fit with joined neighbours, while a model is called with fake
tensors: nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_HEADER, _GRAIN = 16, 16  # bytes before what is lent, and what sizes are multiples of: malloc(3) of 64-bit systems
_SPARE = 64 + 32  # torch's alignment, and the smallest chunk


class Heap:
    """Addresses of a heap that grows at its end; `top` is the most that it ever took, in bytes."""

    def __init__(self) -> None:
        self.top = 0
        self._holes: dict[int, int] = {}  # the size of each, by its address
        self._at_end: dict[int, int] = {}  # the address of each, by where it ends

    def take(self, num_bytes: int) -> tuple[int, int]:
        """Return address and size of a chunk for so many bytes: of the smallest hole that does, else at the end."""
        size = -(-num_bytes // _GRAIN) * _GRAIN + _HEADER
        fitting = [(hole, start) for start, hole in self._holes.items() if hole >= size + _SPARE]
        if fitting:
            hole, start = min(fitting)
            self._forget(start)
            self._keep(start + size, hole - size)
        else:
            start = self._at_end.get(self.top, self.top)
            if start < self.top:
                self._forget(start)
            if start + size < self.top:
                self._keep(start + size, self.top - start - size)
            self.top = max(self.top, start + size)
        return start, size

    def give_back(self, start: int, size: int) -> None:
        """Take a chunk back and join it with the holes on both sides."""
        before = self._at_end.get(start)
        if before is not None:
            size, start = size + self._forget(before), before
        if start + size in self._holes:
            size += self._forget(start + size)
        self._keep(start, size)

    def _keep(self, start: int, size: int) -> None:
        self._holes[start], self._at_end[start + size] = size, start

    def _forget(self, start: int) -> int:
        size = self._holes.pop(start)
        del self._at_end[start + size]
        return size


class OnHeap(TorchDispatchMode):
    """Puts every storage that operations make on a `Heap`, and takes it off when nothing holds it any more."""

    def __init__(self) -> None:
        super().__init__()
        self._heap = Heap()
        self._lent: dict[int, tuple[StorageWeakRef, tuple[int, int]]] = {}

    @property
    def top(self) -> int:
        """The most that the heap took."""
        return self._heap.top

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation between what has gone before it and what it makes."""
        for key in [key for key, (storage, _) in self._lent.items() if storage.expired()]:
            self._heap.give_back(*self._lent.pop(key)[1])
        made = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        for tensor in tree_leaves(made):
            if _is_tensor(tensor) and tensor.untyped_storage()._cdata not in known:
                self._lend(tensor)
        return made

    def _lend(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._lent:  # a view of what is there, or a new one of an old number
            if not self._lent[storage._cdata][0].expired():
                return
            self._heap.give_back(*self._lent.pop(storage._cdata)[1])
        self._lent[storage._cdata] = StorageWeakRef(storage), self._heap.take(storage.nbytes())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
