"""Resident memory of a process, in bytes, as Linux counts it (None where there is no /proc), and giving some back.

A process that imported torch holds hundreds of megabytes before it loads anything. So what a model takes is a
difference: the peak after it ran, less what was resident before, with the peak set back in between.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

_SET_BACK_THE_PEAK = "5"  # proc(5), /proc/PID/clear_refs


def resident_bytes(pid: int | str = "self") -> int | None:
    """Return what the process holds in memory now."""
    return _status("VmRSS", pid)


def peak_resident_bytes(pid: int | str = "self") -> int | None:
    """Return the most that the process ever held, since `reset_peak` if that was called."""
    return _status("VmHWM", pid)


def reset_peak() -> None:
    """Let the peak of this process start from what it holds now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text(_SET_BACK_THE_PEAK)
    except OSError:
        return


def give_back_free_memory() -> None:
    """Give the system the pages of the heap that are free, where the C library can (glibc).

    It keeps them otherwise, and what was needed for a moment to read a large file stays resident.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _status(name: str, pid: int | str) -> int | None:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
