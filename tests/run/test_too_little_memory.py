from __future__ import annotations

import errno
import os

import pytest
import torch

from bitnet_train.config.compose import compose
from bitnet_train.errors import DataError, TrainingError
from bitnet_train.run.too_little_memory import is_out_of_memory, told_with_the_estimate
from bitnet_train.train.loop.budget import Estimate

ESTIMATE = Estimate(max_steps=1, tokens=1, memory_bytes=2_500_000_000)


def config():
    return compose("quickstart", ["run.dir=runs/mine", "trainer.micro_rows=2"]).config


def test_what_torch_says_when_no_memory_is_left_is_told_with_the_estimate_and_the_way_out() -> None:
    with pytest.raises(TrainingError) as caught, told_with_the_estimate(config(), ESTIMATE):
        torch.empty(1 << 60, dtype=torch.uint8)
    said = str(caught.value)
    assert "estimated at 2.50 GB and the activations of 2 rows of 256 tokens" in said
    assert "`bitnet-train train runs/mine trainer.micro_rows=1`" in said


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (DataError("no memory of that row"), False),
    ],
)
def test_other_errors_pass_as_they_are(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
    with pytest.raises(TrainingError if is_memory else type(error)), told_with_the_estimate(config(), ESTIMATE):
        raise error
