"""A job that is no longer wanted ends at its next step, in the middle of a model too."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bitnet_train.serve.playground.workbench.task import Task, Unwanted, finite


def test_a_model_that_is_called_ends_with_its_job() -> None:
    task, model = Task("job"), nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)))
    with task.interruptible():
        model(torch.ones(1, 4))
        model[3].register_forward_pre_hook(lambda *_: task.cancel())
        with pytest.raises(Unwanted):
            model(torch.ones(1, 4))
    model(torch.ones(1, 4))
    with pytest.raises(Unwanted):
        task.check()


def test_numbers_that_json_lacks_are_nothing() -> None:
    assert finite({"a": [math.nan, 1.5, (math.inf, "x")], "b": {"c": -math.inf}}) == {
        "a": [None, 1.5, [None, "x"]],
        "b": {"c": None},
    }
