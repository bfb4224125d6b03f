from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from torch.profiler import record_function

from scripts.bench.distil_step import VOCABULARY, operations, parts_of


def test_products_with_the_vocabulary_are_the_head_and_others_are_not_unless_a_range_says_more() -> None:
    x, head, other = torch.randn(64, 8), torch.randn(8, VOCABULARY), torch.randn(8, 512)

    def step() -> None:
        x.mm(head)
        x.mm(other)
        with record_function("teacher"):
            x.mm(head)

    found = parts_of(step)
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(found[part] > 0 for part in ("head", "float products", "teacher"))
    assert found["loss"] == 0


def test_a_step_is_three_products_of_every_weight_of_the_student_and_one_of_the_teacher() -> None:
    layer = 576 * (576 + 192 + 192 + 576) + 3 * 576 * 1536
    assert operations(Namespace(layers=2, tokens=512)) == 4 * 2 * 512 * (2 * layer + 576 * VOCABULARY)
