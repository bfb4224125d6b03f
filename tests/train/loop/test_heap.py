"""A heap grows as glibc's does under torch's requests: a hole takes what is smaller than it, never its like."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bitnet_train.train.loop.heap import Heap, OnHeap

CHUNK = 4096 + 16  # with the header before it


def test_a_hole_between_two_that_stay_takes_what_is_smaller_alone() -> None:
    heap = Heap()
    _, hole, _ = (heap.take(4096) for _ in range(3))
    heap.give_back(*hole)
    assert heap.take(4096)[0] == 3 * CHUNK == heap.top - CHUNK, "one of its like is put at the end"
    assert heap.take(4096 - 96)[0] == hole[0], "96 bytes less fit, which is alignment and smallest chunk"
    assert heap.top == 4 * CHUNK


def test_neighbours_that_are_free_are_one_hole_and_the_smallest_that_does_is_taken() -> None:
    heap = Heap()
    taken = [heap.take(4096) for _ in range(6)]
    for freed in (taken[0], taken[1], taken[3], taken[2]):
        heap.give_back(*freed)
    assert heap.take(2 * 4096)[0] == 0
    assert heap.take(4096)[0] == 2 * 4096 + 16
    assert heap.top == 6 * CHUNK


def test_what_is_free_at_the_end_grows() -> None:
    heap = Heap()
    heap.take(4096)
    heap.give_back(*heap.take(4096))
    assert heap.take(8192)[0] == CHUNK
    assert heap.top == CHUNK + 8192 + 16


def test_storages_of_operations_are_on_it_for_as_long_as_something_holds_them() -> None:
    def make() -> torch.Tensor:
        return torch.empty(1024)  # 4096 bytes

    with FakeTensorMode(), OnHeap() as heap:
        held = [make(), make().view(32, 32), make()]
        assert heap.top == 3 * CHUNK, "a view is no further storage"
        held[0].add_(1)
        assert heap.top == 3 * CHUNK, "nor is what is written in place"
        del held[1:]
        held.append(make())
        assert heap.top == 3 * CHUNK, "two that went left room for one"
        assert len(held) == 2
