from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.machine import CLEARLY, Arithmetic, arithmetic, physical_cores, thread_count

AVX2_ONLY = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def test_auto_is_bf16_exactly_where_its_product_is_clearly_faster() -> None:
    found = arithmetic("auto", "cpu")
    assert (found.precision == "bf16") == (found.fp32_ms > CLEARLY * found.bf16_ms)
    assert min(found.fp32_ms, found.bf16_ms) > 0


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are those of x86 libraries")
def test_auto_is_fp32_where_bf16_is_imitated() -> None:
    program = "from bitnet_train.train.loop.machine import arithmetic; print(arithmetic('auto', 'cpu').describe())"
    environment = {**os.environ, **AVX2_ONLY}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    precision, _, rest = done.stdout.partition(";")
    assert precision == "fp32"
    assert float(rest.split("takes ")[1].split(" times")[0]) > 2, (
        "bf16 without its instructions is several times slower"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_asked_for_by_name_is_kept(precision: str) -> None:
    assert arithmetic(precision, "cpu").precision == precision


def test_only_bf16_that_is_slower_than_fp32_is_warned_of_with_the_factor() -> None:
    warning = Arithmetic("bf16", fp32_ms=2.0, bf16_ms=46.0).warning()
    assert warning is not None
    assert "23 times as long as fp32" in warning
    assert "trainer.precision=auto" in warning
    assert Arithmetic("fp32", fp32_ms=2.0, bf16_ms=46.0).warning() is None
    assert Arithmetic("bf16", fp32_ms=2.0, bf16_ms=1.0).warning() is None


def test_an_unknown_precision_is_refused_with_all_names() -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.precision=fp16`.*Allowed: auto, fp32, bf16"):
        arithmetic("fp16")


def test_timing_leaves_threads_and_random_numbers_as_they_were() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    arithmetic("auto", "cpu")
    assert thread_count(2) == max(1, (physical_cores() or os.cpu_count() or 1) // 2)
    assert thread_count(10_000) == 1
    assert 1 <= thread_count() <= max(before, physical_cores() or before)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)
