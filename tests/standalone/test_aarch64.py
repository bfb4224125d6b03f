"""The program for aarch64 Linux, cross-compiled and static, run under an emulator: the tokens of Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bitnet_train as bt
from tests.fixtures.native_folders import IDS
from tests.standalone.built import QUICK, built

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
CROSS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_CXX_COMPILER={COMPILER}",
    "-DBITNET_STATIC=ON",
)

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.slow,
    pytest.mark.toolchain,
    pytest.mark.skipif(
        shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None,
        reason="needs the packages g++-aarch64-linux-gnu and qemu-user",
    ),
]


@pytest.fixture(scope="module")
def arm(kept: Path) -> Path:
    return built(kept, "bitnet-run", *QUICK, *CROSS) / "bitnet-run"


def run(cpu: str, arm: Path, *words: object) -> str:
    command = [EMULATOR, "-cpu", cpu, arm, *map(str, words), "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("cpu", ["max", "cortex-a72"])
def test_a_prompt_is_continued_as_here(arm, bundled, cpu):
    expected = bt.NativeModel.load(bundled, verify=False).generate("Once upon a time", max_new_tokens=16).text
    assert run(cpu, arm, bundled, "Once upon a time", "-n", 16) == expected + "\n"


@pytest.mark.parametrize("case", [{}, {"embedding": "int4", "head": "int4"}, {"family": "phi3"}], ids=str)
def test_ids_are_those_of_here(arm, native, case):
    """Floats may differ in the last bit between instruction sets; two likeliest tokens are farther apart than that."""
    folder = native(**case)
    expected = bt.NativeModel.load(folder, verify=False).generate_ids(IDS, 8)
    assert list(map(int, run("max", arm, folder, "--ids", " ".join(map(str, IDS)), "-n", 8).split())) == expected
