from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bitnet_train.kernels.integer_training import weight_gradient
from bitnet_train.kernels.isa import core
from bitnet_train.kernels.torch_threads import on_torch_threads

pytestmark = pytest.mark.skipif(core is None, reason="the extension is not built")
HAS_GNU_OPENMP = hasattr(ctypes.CDLL(None), "GOMP_parallel") if sys.platform == "linux" else False


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def product() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dy = torch.randn(512, 256, generator=generator)
    codes = torch.randint(-127, 128, (512, 256), generator=generator, dtype=torch.int8)
    return weight_gradient(dy, codes, torch.rand(512, 1, generator=generator))


def test_results_are_the_same_and_what_held_before_comes_back(two_threads: None) -> None:
    alone = product()
    with on_torch_threads():
        assert torch.equal(product(), alone)
        with on_torch_threads():
            assert torch.equal(product(), alone)
        assert core.join_openmp(True) is True
    assert core.join_openmp(False) is False
    assert torch.equal(product(), alone)


def test_a_function_is_decorated(two_threads: None) -> None:
    @on_torch_threads()
    def joined() -> bool:
        return core.join_openmp(True)

    assert joined() is True
    assert core.join_openmp(False) is False


@pytest.mark.skipif(not HAS_GNU_OPENMP, reason="torch brings no GNU OpenMP here")
def test_no_threads_of_our_own_are_started() -> None:
    """In a process of its own, in which no kernel has run yet: torch's threads are there, and no more come."""
    text = f"""
import os, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.kernels.test_torch_threads import on_torch_threads, product
torch.set_num_threads(2)
torch.randn(512, 512) @ torch.randn(512, 512)
torch.ones(1 << 20).add_(1)
threads = lambda: set(os.listdir("/proc/self/task"))  # by their ids: one of a library's may end in between
before = threads()
with on_torch_threads():
    product()
print(len(threads() - before))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"]


def test_threads_of_python_that_ask_at_once_get_what_they_would_alone(two_threads: None) -> None:
    alone, found = product(), []
    with on_torch_threads():
        threads = [threading.Thread(target=lambda: found.append(product())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, alone) for one in found)
