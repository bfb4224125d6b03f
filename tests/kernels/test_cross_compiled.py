"""The kernels without Python: native under sanitizers, and cross-compiled for ARM, run under an emulator.

They build the programs of `csrc/selftest`, which hold every kernel that the CPU supports against a naive oracle. One
file for all of them, so that one worker compiles what they share once.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bitnet_train.kernels.isa import available_isas
from tests.kernels.csrc import sanitized_sources, selftest_sources

ARM_COMPILER, EMULATOR, NATIVE_COMPILER = "aarch64-linux-gnu-g++", "qemu-aarch64", "g++"
FOR_ARM = ("-O1", "-static", "-march=armv8-a", "-DBITNET_ARM64=1")  # dot products only in the file of their kernel
SANITIZERS = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DBITNET_X86=1")
FOLDERS = {
    "attention": ("core", "attention"),
    "products": ("core", "products"),
    "int8": ("core", "int8"),
    "training": ("core", "products", "fake_quantize", "int8_matrix", "training"),
}

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]
NEEDS_ARM = pytest.mark.skipif(
    shutil.which(ARM_COMPILER) is None or shutil.which(EMULATOR) is None,
    reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
)
NEEDS_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or shutil.which(NATIVE_COMPILER) is None,
    reason="needs an x86-64 machine with the package g++",
)

Programs = Callable[[str], Path]


def _run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def of_arm(build_program: Callable[..., Path]) -> Programs:
    def build(name: str) -> Path:
        sources = selftest_sources(f"{name}_selftest", FOLDERS[name], "BITNET_ARM64")
        return build_program(ARM_COMPILER, FOR_ARM, sources)

    return build


@NEEDS_ARM
def test_every_product_of_arm_is_exact_on_a_cpu_with_dot_products(of_arm: Programs) -> None:
    demanded = ("lookup.neon", "popcount.neon", "dot.neon", "popcount.portable")
    printed = _run(EMULATOR, "-cpu", "max", str(of_arm("products")), *demanded)
    assert printed.count("problems exact") == len(demanded)


@NEEDS_ARM
def test_an_arm_cpu_without_dot_products_runs_the_other_products(of_arm: Programs) -> None:
    demanded = ("lookup.neon", "popcount.neon", "popcount.portable")
    printed = _run(EMULATOR, "-cpu", "cortex-a72", str(of_arm("products")), *demanded)
    assert printed.count("problems exact") == len(demanded)
    assert "dot.neon             not supported by this CPU" in printed


@NEEDS_ARM
def test_the_selftest_fails_for_a_kernel_that_the_cpu_lacks(of_arm: Programs) -> None:
    command = (EMULATOR, "-cpu", "cortex-a72", str(of_arm("products")), "dot.neon")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "kernel dot.neon does not run on this CPU" in done.stdout


@NEEDS_ARM
def test_the_int8_table_is_exact_on_arm(of_arm: Programs) -> None:
    assert _run(EMULATOR, "-cpu", "cortex-a72", str(of_arm("int8"))) == "neon exact\nportable exact\n"


@NEEDS_ARM
@pytest.mark.parametrize(("cpu", "kernels"), [("max", ("neon", "portable")), ("cortex-a72", ("portable",))])
def test_attention_over_int8_is_exact_on_arm(cpu: str, kernels: tuple[str, ...], of_arm: Programs) -> None:
    assert _run(EMULATOR, "-cpu", cpu, str(of_arm("attention"))) == "".join(f"{name} exact\n" for name in kernels)


@NEEDS_ARM
@pytest.mark.parametrize(("cpu", "tile"), [("max", "8 x 12"), ("cortex-a72", "4 x 16")])
def test_a_training_step_is_exact_on_arm_with_and_without_dot_products(cpu: str, tile: str, of_arm: Programs) -> None:
    printed = _run(EMULATOR, "-cpu", cpu, str(of_arm("training")))
    assert printed == f"neon exact, int8 by {tile}\nportable exact, int8 by 4 x 8\n"


@NEEDS_X86
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("attention", "portable exact"),
        ("products", "problems exact"),
        ("int8", "portable exact"),
        ("training", "portable exact, int8 by 4 x 8"),
    ],
)
def test_nothing_reads_or_writes_out_of_bounds(name: str, last: str, build_program: Callable[..., Path]) -> None:
    sources = sanitized_sources(f"{name}_selftest", FOLDERS[name], available_isas())
    assert last in _run(str(build_program(NATIVE_COMPILER, SANITIZERS, sources)))
