"""The kernels without Python: native under sanitizers, and cross-compiled for ARM, run under an emulator.

Both build `csrc/selftest/products_selftest.cpp`, which holds every kernel that the CPU supports against a naive oracle.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels.csrc import selftest_sources

ARM_COMPILER, EMULATOR, NATIVE_COMPILER = "aarch64-linux-gnu-g++", "qemu-aarch64", "g++"
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NOT_OPTIMISED = "-O0"  # optimising instrumented templates takes minutes, running them as they are seconds
SELFTEST = ("products_selftest", ("core", "products"))

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]
NEEDS_ARM = pytest.mark.skipif(
    shutil.which(ARM_COMPILER) is None or shutil.which(EMULATOR) is None,
    reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
)
NEEDS_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or shutil.which(NATIVE_COMPILER) is None,
    reason="needs an x86-64 machine with the package g++",
)


def _run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def arm_selftest(build_program: Callable[..., Path]) -> Path:
    """The selftest for 64-bit ARM, with nothing but dot_neon.cpp compiled for dot products."""
    flags = ("-O1", "-static", "-march=armv8-a", "-DBITNET_ARM64=1")
    return build_program(ARM_COMPILER, flags, selftest_sources(*SELFTEST, "BITNET_ARM64"))


@NEEDS_ARM
def test_every_arm_kernel_is_exact_on_a_cpu_with_dot_products(arm_selftest: Path):
    demanded = ("lookup.neon", "popcount.neon", "dot.neon", "popcount.portable")
    printed = _run(EMULATOR, "-cpu", "max", str(arm_selftest), *demanded)
    assert printed.count("problems exact") == len(demanded)


@NEEDS_ARM
def test_an_arm_cpu_without_dot_products_runs_the_other_kernels(arm_selftest: Path):
    demanded = ("lookup.neon", "popcount.neon", "popcount.portable")
    printed = _run(EMULATOR, "-cpu", "cortex-a72", str(arm_selftest), *demanded)
    assert printed.count("problems exact") == len(demanded)
    assert "dot.neon             not supported by this CPU" in printed


@NEEDS_ARM
def test_the_selftest_fails_for_a_kernel_that_the_cpu_lacks(arm_selftest: Path):
    command = (EMULATOR, "-cpu", "cortex-a72", str(arm_selftest), "dot.neon")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "kernel dot.neon does not run on this CPU" in done.stdout


@NEEDS_X86
def test_no_kernel_of_this_cpu_reads_or_writes_out_of_bounds(build_program: Callable[..., Path]):
    sources = selftest_sources(*SELFTEST, "BITNET_X86", NOT_OPTIMISED)
    program = build_program(NATIVE_COMPILER, (*SANITIZERS, "-DBITNET_X86=1"), sources)
    assert "problems exact" in _run(str(program), "popcount.portable")
