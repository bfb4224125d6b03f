"""The narrowest floating-point type that still holds every value of a tensor exactly.

A bf16 base model is trained in float32, and most of what is not packed (embeddings, frozen norms) never moved: it is
still bf16-representable, so storing it in bf16 halves the file and loses nothing. What did move stays float32.
Equality is of bit patterns after the way back to float32, so -0.0 and NaN count too.
"""

from __future__ import annotations

import torch
from torch import Tensor

NARROW_DTYPES = (torch.bfloat16, torch.float16)


def narrowest(tensor: Tensor) -> Tensor:
    """Return `tensor` on the CPU, contiguous, in the first of bfloat16, float16, float32 that holds it exactly.

    Tensors that are not float32 come back in their own dtype.
    """
    tensor = tensor.detach().to("cpu").contiguous()
    if tensor.dtype != torch.float32:
        return tensor
    for dtype in NARROW_DTYPES:
        narrow = tensor.to(dtype)
        if same_bits(narrow.to(torch.float32), tensor):
            return narrow
    return tensor


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors have the same dtype, shape and bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(bytes_of(a), bytes_of(b))


def bytes_of(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor as flat uint8, in its own little-endian storage order."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def hashable(tensor: Tensor) -> memoryview:
    """Return the bytes of a CPU tensor for a hash, without a copy when it is contiguous."""
    return bytes_of(tensor).numpy().data
