"""Memory that a training step frees is kept for the next one, not given back to the system.

A step on the CPU allocates and frees hundreds of tensors of some megabytes. glibc takes each from the kernel and gives
it back, and the kernel clears every page again, which costs a good part of a step where page faults are dear, as on
virtual machines (`returning` in `scripts/bench/train_step.py`). The peak stays: the next step needs the same.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h; see mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what this process frees; return whether it took it. Nothing happens elsewhere, or twice."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
