"""Where two texts part, and a model that is float and swapped by turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bitnet_train.importers.load import load_pretrained
from bitnet_train.serve.playground.workbench.continuation import Both, parts_at
from bitnet_train.serve.playground.workbench.measured import Measured
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.task import Task


@pytest.mark.parametrize(
    ("first", "second", "at"),
    [([], [], None), ([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([1, 2, 3], [1], 1), ([], [1], 0)],
)
def test_texts_part_where_they_first_differ(first: list[int], second: list[int], at: int | None) -> None:
    assert parts_at(first, second) == at


def test_a_model_is_each_side_by_turns_and_itself_afterwards() -> None:
    opened, said = Opened(load_pretrained("tiny"), None), list[dict[str, Any]]()
    measured, task, ids = Measured(opened, 128), Task("job", said.append), torch.tensor([[5, 6, 7]])
    schemes = opened.schemes({"lm_head": "binary", "model.layers.1.mlp.up_proj": "ternary"})

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return opened.model(ids).logits

    weights = dict(opened.model.named_parameters())
    original = logits()
    both = Both(opened, measured, schemes, task)
    assert torch.equal(logits(), original)
    assert {event["event"] for event in said} == {"progress"}
    both.use("swapped")
    swapped = logits()
    assert not torch.allclose(swapped, original, atol=0.1)
    with measured.swapped(task, schemes):
        pass
    both.use("original")
    assert torch.equal(logits(), original)
    both.use("swapped")
    assert torch.equal(logits(), swapped)
    both.close()
    assert torch.equal(logits(), original)
    assert dict(opened.model.named_parameters()) == weights
