"""What weights outside the 1-bit layers are rounded to, so that they take few bytes: in training as on disk.

    int8        a table, embedding or head: one byte a weight and a float16 scale a row (`quant.table`)
    bfloat16    everything else, norms and biases among it

The forward computes with rounded values; the gradient passes as if they were not (the straight-through estimator), to
float32 values that the optimiser keeps (`train.optim`). A model therefore holds at every step exactly what its folder
will: nothing is rounded on the way out. Rounding twice is rounding once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from bitnet_train.quant.table import rounded_table

Stored = Literal["int8", "bfloat16"]


def _bfloat16(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.bfloat16).float()


ROUNDINGS: Mapping[Stored, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"int8": rounded_table, "bfloat16": _bfloat16}
)
"""From a float tensor to the float32 one that is stored; ConversionError for a table that is not finite."""


@torch.no_grad()
def round_in_place(weight: Tensor, stored: Stored) -> None:
    """Give a float32 tensor the values that will be stored."""
    weight.copy_(ROUNDINGS[stored](weight))
