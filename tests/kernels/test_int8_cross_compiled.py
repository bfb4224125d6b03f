"""The int8 table without Python: native under sanitizers, and cross-compiled for ARM, run under an emulator."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "bitnet_train" / "kernels" / "csrc"
SHARED = ("selftest/int8_selftest", "int8_table", "int8_table_portable", "cpu_features", "memory", "team")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = (
    *AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni",
    "-Wno-maybe-uninitialized", "-Wno-uninitialized",
)  # fmt: skip
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]


def _run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def selftest(isa_flags: Mapping[str, tuple[str, ...]]) -> dict[Path, tuple[str, ...]]:
    return {SOURCES / f"{name}.cpp": flags for name, flags in {**dict.fromkeys(SHARED, ()), **isa_flags}.items()}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or shutil.which("g++") is None,
    reason="needs an x86-64 machine with the package g++",
)
def test_no_int8_kernel_of_this_cpu_reads_or_writes_out_of_bounds(build_program: Callable[..., Path]) -> None:
    isa_flags = {"int8_table_avx2": AVX2, "int8_table_avx512": AVX512}
    program = build_program("g++", (*SANITIZERS, "-DBITNET_X86=1"), selftest(isa_flags))
    assert "portable exact" in _run(str(program))


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None,
    reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
)
def test_the_int8_kernels_of_arm_are_exact(build_program: Callable[..., Path]) -> None:
    flags = ("-O1", "-static", "-march=armv8-a", "-DBITNET_ARM64=1")
    program = build_program("aarch64-linux-gnu-g++", flags, selftest({"int8_table_neon": ()}))
    assert _run("qemu-aarch64", "-cpu", "cortex-a72", str(program)) == "neon exact\nportable exact\n"
