"""The int8 table without Python: native under sanitizers, and cross-compiled for ARM, run under an emulator."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels.csrc import selftest_sources

SELFTEST = ("int8_selftest", ("core", "int8"))
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]


def _run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or shutil.which("g++") is None,
    reason="needs an x86-64 machine with the package g++",
)
def test_no_int8_kernel_of_this_cpu_reads_or_writes_out_of_bounds(build_program: Callable[..., Path]) -> None:
    program = build_program("g++", (*SANITIZERS, "-DBITNET_X86=1"), selftest_sources(*SELFTEST, "BITNET_X86"))
    assert "portable exact" in _run(str(program))


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None,
    reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
)
def test_the_int8_kernels_of_arm_are_exact(build_program: Callable[..., Path]) -> None:
    flags = ("-O1", "-static", "-march=armv8-a", "-DBITNET_ARM64=1")
    program = build_program("aarch64-linux-gnu-g++", flags, selftest_sources(*SELFTEST, "BITNET_ARM64"))
    assert _run("qemu-aarch64", "-cpu", "cortex-a72", str(program)) == "neon exact\nportable exact\n"
