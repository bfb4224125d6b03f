"""What this machine could do at most: the roofs of the roofline picture, measured in the run they are drawn for.

bandwidth     bytes a second that 1 or 2 threads read from each level of memory
clock         ticks a second of a busy core
arithmetic    operations a tick that a method needs at least, times the clock

An operation is one multiplication or addition of the product y = W x, so a weight of a token is two.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from bitnet_train.kernels import _core

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_KIB = {"L1": 32, "L2": 1024, "L3": 32768}
READ_BYTES = 256 << 20  # a round reads about this much
ROUNDS = 5
# Zen 4, 512-bit words at one a tick (two 256-bit halves). Sign: xor, popcount, add over 512 weights in 1.5 ticks. Eight
# planes: that eight times. VNNI: 64 products a tick. Look-up of 5 weights: 32 rows of one permute and one add in
# 1.67 ticks.
OPERATIONS_PER_TICK = {
    "sign by popcount": 1024 / 1.5,
    "int8 by 8 planes": 1024 / 12,
    "int8 by VNNI": 128.0,
    "int8 by look-up of 5": 2 * 5 * 32 / (5 / 3),
}


def limits(threads: int) -> dict[str, Any]:
    """Return all limits for so many threads: GB/s by level, GHz, and GOP/s by method."""
    clock = _core.clock_hz() / 1e9
    return {
        "bandwidth_GBps": bandwidth(threads),
        "clock_GHz": clock,
        "arithmetic_GOPps": {method: threads * clock * rate for method, rate in OPERATIONS_PER_TICK.items()},
    }


def bandwidth(threads: int) -> dict[str, float]:
    """Return the read bandwidth of each level of memory in GB/s, medians; every thread has a block of its own."""
    found = {}
    for level, size in block_bytes(threads).items():
        repeats = max(2, READ_BYTES // size)
        found[level] = statistics.median(_core.read_bandwidth(size, repeats, threads) for _ in range(ROUNDS)) / 1e9
    return found


def block_bytes(threads: int) -> dict[str, int]:
    """Return a block for each level: half of a cache of one core, a quarter of the shared one, or far beyond all."""
    caches = {level: cache_kib(level) << 10 for level in USUAL_KIB}
    shared = max(caches["L3"] // 4 // threads, 2 * caches["L2"])
    return {"L1": caches["L1"] // 2, "L2": caches["L2"] // 2, "L3": shared, "DRAM": max(8 * caches["L3"], 256 << 20)}


def cache_kib(level: str) -> int:
    """Return the size of a data cache of the first core in KiB; a usual one where the system does not say."""
    for index in sorted(CACHES.glob("index*")):
        kind, number = (index / "type").read_text().strip(), (index / "level").read_text().strip()
        if level == f"L{number}" and kind != "Instruction":
            return int((index / "size").read_text().strip().removesuffix("K"))
    return USUAL_KIB[level]
