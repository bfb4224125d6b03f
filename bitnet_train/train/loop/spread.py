"""Tensors of which each process of a run has a share (`sharded`): the whole of one, this process's share, and which."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def is_spread(model: nn.Module) -> bool:
    """Whether a model's parameters are shares."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, gathered if it is spread; then all processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, in its memory; within `no_grad`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
