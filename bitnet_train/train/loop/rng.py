"""Every random number of a step is a function of (seed, step, rank).

Seeding at the start of each optimiser step makes a resumed run draw the numbers that the uninterrupted one drew, no
matter what happened between the steps: a validation, a loader that drew ahead, telemetry. The generator states that
checkpoints also hold serve code that draws *outside* the steps, such as a data module that augments in this process.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed python, numpy and torch (every device) for one optimiser step of one process."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "little"))
    torch.manual_seed(int.from_bytes(digest[:8], "little"))


def generator_states() -> dict[str, Any]:
    """Return the states of all generators of this process as plain numbers and uint8 tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Undo `generator_states`. CUDA states are set for the devices that both machines have."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state.cpu(), device)
