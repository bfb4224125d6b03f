"""What weights outside the 1-bit layers are rounded to, so that they take few bytes: in training as on disk.

    int8        a table, embedding or head: one byte a weight and a float16 scale a row (`quant.int8_table`)
    int5, int4  a table of 5 or 4 bits a weight, and 4 bits for 32 of them (`quant.narrow_table`)
    bfloat16    everything else, norms and biases among it

The forward computes with rounded values; the gradient passes as if they were not (the straight-through estimator), to
float32 values that the optimiser keeps (`train.loop.optim`). A model therefore holds at every step exactly what its
folder will: nothing is rounded on the way out. Rounding twice is rounding once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from bitnet_train.quant.scheme import TABLE_BITS, TableType
from bitnet_train.quant.table import round_to_bits

Stored = Literal[TableType, "bfloat16"]


def _round_to_bfloat16(weight: Tensor, out: Tensor) -> None:
    out.copy_(weight.to(torch.bfloat16))


_ROUND: Mapping[Stored, Callable[[Tensor, Tensor], None]] = MappingProxyType(
    {
        **{stored: partial(round_to_bits, bits=bits) for stored, bits in TABLE_BITS.items()},
        "bfloat16": _round_to_bfloat16,
    }
)
STORED: tuple[Stored, ...] = tuple(_ROUND)


@torch.no_grad()
def round_into(weight: Tensor, stored: Stored, out: Tensor) -> None:
    """Write the values that will be stored of a float32 tensor to another of its kind; raises as `round_in_place`."""
    _ROUND[stored](weight, out)


@torch.no_grad()
def round_in_place(weight: Tensor, stored: Stored) -> None:
    """Give a float32 tensor the values that will be stored; ConversionError for a table that is not finite."""
    _ROUND[stored](weight, weight)


def rounded(weight: Tensor, stored: Stored) -> Tensor:
    """A float32 copy of a float tensor with the values that will be stored. Raises as `round_in_place`."""
    copy = weight.detach().to(torch.float32, copy=True)
    round_in_place(copy, stored)
    return copy
