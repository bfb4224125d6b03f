"""The products of a training step without Python: native under sanitizers, and for ARM under an emulator."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels.csrc import selftest_sources

SELFTEST = ("training_selftest", ("core", "products", "fake_quantize", "int8_matrix", "training"))
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARM_COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]
needs_arm = pytest.mark.skipif(
    shutil.which(ARM_COMPILER) is None or shutil.which(EMULATOR) is None,
    reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
)


def _run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or shutil.which("g++") is None,
    reason="needs an x86-64 machine with the package g++",
)
def test_nothing_of_a_training_step_reads_or_writes_out_of_bounds(build_program: Callable[..., Path]) -> None:
    program = build_program("g++", (*SANITIZERS, "-DBITNET_X86=1"), selftest_sources(*SELFTEST, "BITNET_X86"))
    assert "portable exact, int8 by 4 x 8" in _run(str(program))


@needs_arm
@pytest.mark.parametrize(("cpu", "tile"), [("max", "8 x 12"), ("cortex-a72", "4 x 16")])
def test_a_training_step_is_exact_on_arm_with_and_without_dot_products(
    cpu: str, tile: str, build_program: Callable[..., Path]
) -> None:
    flags = ("-O1", "-static", "-march=armv8-a", "-DBITNET_ARM64=1")
    program = build_program(ARM_COMPILER, flags, selftest_sources(*SELFTEST, "BITNET_ARM64"))
    printed = _run(EMULATOR, "-cpu", cpu, str(program))
    assert printed == f"neon exact, int8 by {tile}\nportable exact, int8 by 4 x 8\n"
