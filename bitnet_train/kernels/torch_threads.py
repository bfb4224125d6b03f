"""Kernels on the threads that torch multiplies with, for as long as the two take turns.

The threads of either wait awake, on the cores that the other needs: a training step of integer products beside float
ones took longer than with floats alone. Where torch brings no GNU OpenMP (macOS, Windows), or without the extension,
nothing changes. Results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bitnet_train.kernels.isa import core


@contextmanager
def on_torch_threads() -> Iterator[None]:
    """Let the kernels called in the block, or in the function that this decorates, run on torch's threads."""
    if core is None or not hasattr(core, "join_openmp"):
        yield
        return
    before = core.join_openmp(True)
    try:
        yield
    finally:
        core.join_openmp(before)
