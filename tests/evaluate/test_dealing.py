"""Batches dealt out to processes come back in their order, and add up to what one process makes of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bitnet_train.evaluate.comparison import compare
from bitnet_train.evaluate.dealing import Dealing


def answer(monkeypatch: pytest.MonkeyPatch, everything: list[list[Any]]) -> None:
    """Let processes hear what all of them have."""

    def gather(found: list[Any], own: list[Any]) -> None:
        found[:] = everything

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_every_item_is_one_processs_and_all_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(7))
    dealt = [list(Dealing(rank, 3).own(items)) for rank in range(3)]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]

    answer(monkeypatch, dealt)
    assert Dealing(1, 3).gathered(dealt[1]) == items


def test_more_processes_than_batches_leave_some_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Dealing(2, 3).own(["a"])) == []
    answer(monkeypatch, [["a"], [], []])
    assert Dealing(2, 3).gathered([]) == ["a"]


def test_what_processes_measure_together_is_what_one_measures(student, teacher, rows, monkeypatch) -> None:
    made: list[list[Any]] = []

    def keep(self: Dealing, own: list[Any]) -> list[Any]:
        made.append(own)
        return own

    with monkeypatch.context() as patched:
        patched.setattr(Dealing, "gathered", keep)
        alone = compare(student, teacher, rows, batch_rows=1)
        for rank in (0, 1):
            compare(student, teacher, rows, batch_rows=1, dealing=Dealing(rank, 2))
    whole, *parts = made
    assert [len(part) for part in parts] == [-(-len(whole) // 2), len(whole) // 2]
    answer(monkeypatch, parts)
    assert compare(student, teacher, rows, batch_rows=1, dealing=Dealing(1, 2)) == alone
