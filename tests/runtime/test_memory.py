from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import pytest

from bitnet_train.runtime.memory import give_back_free_memory, peak_resident_bytes, reset_peak, resident_bytes

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")


@linux
def test_the_peak_remembers_memory_that_was_given_back():
    reset_peak()
    before = resident_bytes()
    with mmap.mmap(-1, 64 << 20) as block:  # not from the heap, which may have such a block to spare
        for _ in range(64):  # in pieces: a large one would come from the heap, which may keep it for later
            block.write(b"1" * (1 << 20))
    peak, after = peak_resident_bytes(), resident_bytes()
    assert before is not None
    assert peak is not None
    assert after is not None
    assert peak - before > 60 << 20
    assert after - before < 60 << 20


glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no C library that gives back"
)


@glibc
def test_free_memory_of_the_heap_goes_back_to_the_system():
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [library.malloc(100_000) for _ in range(640)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        library.free(block)
    before = resident_bytes()
    give_back_free_memory()
    after = resident_bytes()
    library.free(blocks[-1])
    assert before is not None
    assert after is not None
    assert before - after > 50_000_000


def test_a_process_that_is_not_there_has_no_memory():
    assert resident_bytes(2**31 - 1) is None
    assert peak_resident_bytes("nobody") is None


def test_elsewhere_the_figures_are_missing_not_wrong():
    assert sys.platform == "linux" or resident_bytes() is None
