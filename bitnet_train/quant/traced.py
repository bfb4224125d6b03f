"""Whether operations on a tensor are recorded, not computed: within `torch.compile`, or over shapes alone.

Then there is no memory to hand to a compiled kernel, no version to remember a value by and no number to read back: what
asks for any of these takes the pure functions of this room, which `torch.compile` fuses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def is_traced(tensor: Tensor) -> bool:
    """Whether `tensor` has no values of its own here."""
    return torch.compiler.is_compiling() or isinstance(tensor, FakeTensor)
