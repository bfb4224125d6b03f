"""Hidden states of many rows, in memory or in a file of the run's cache where they would not fit.

The file is mapped: torch reads and writes it as a tensor, and the system drops its pages under pressure. It is scratch,
made anew by every run, and removed when it is done with.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

FLOAT32_BYTES = 4


def hidden_states(shape: tuple[int, int, int], file: Path, memory_bytes: int) -> Tensor:
    """Return float32 [R, L, H], uninitialised: in memory up to `memory_bytes`, else in `file`."""
    numel = shape[0] * shape[1] * shape[2]
    if numel * FLOAT32_BYTES <= memory_bytes:
        return torch.empty(shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    return torch.from_file(str(file), shared=True, size=numel, dtype=torch.float32).view(shape)
