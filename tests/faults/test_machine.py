"""F37 and F40: machines that lack what makes kernels fast, and memory that does not suffice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.commands import Warm, environment
from tests.faults.injected import Limit
from tests.faults.runs import STEP, WORDS, copy_of

PROMPT = "def read_lines(path):"
WITHOUT_KERNELS = """
import sys
sys.modules["bitnet_train.kernels._core"] = None
from bitnet_train.__main__ import main
assert main(["doctor"]) == 0
print("-" * 9)
sys.exit(main(["generate", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def text(warm: Warm, packed: Path) -> str:
    """Return what the packed model writes here."""
    done = warm.run(packed.parent, "generate", packed, PROMPT, "--quiet")
    assert done.code == 0, done.err
    return done.out


def test_without_the_extension_doctor_says_so_and_the_text_is_the_same(text: str, packed: Path) -> None:
    """Cold, for the warm process has the extension; two commands in one process, for the imports."""
    command = [sys.executable, "-c", WITHOUT_KERNELS, str(packed), PROMPT, "--quiet"]
    inherited = {name: value for name, value in environment().items() if name != "BITNET_TRAIN_ISA"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=packed.parent, env=inherited, timeout=240)
    assert done.returncode == 0, done.stderr
    doctor, _, written = done.stdout.partition("-" * 9 + "\n")
    assert "not built" in doctor
    assert written == text


@pytest.mark.parametrize("isa", ["portable", "reference"])
def test_a_cpu_without_wide_instructions_writes_the_same_text(
    isa: str, text: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    done = warm.run(tmp_path, "generate", run_dir, PROMPT, "--quiet", BITNET_TRAIN_ISA=isa)
    assert done.code == 0, done.err
    assert done.out == text
    doctor = warm.run(tmp_path, "doctor", BITNET_TRAIN_ISA=isa)
    assert f"{isa} of " in doctor.said


def test_nothing_needs_a_compiler(warm: Warm, packed: Path, tmp_path: Path) -> None:
    run_dir = copy_of(packed, tmp_path)
    nothing = {"PATH": str(tmp_path / "none"), "CC": "none", "CXX": "none"}
    for words in (("export", run_dir, "export=hf_bitnet"), ("validate", run_dir)):
        done = warm.run(tmp_path, *words, **nothing)
        assert done.code == 0, done.err


def test_too_little_memory_is_an_error_with_the_estimate(warm: Warm, tmp_path: Path) -> None:
    done = warm.run(tmp_path, *WORDS, "run.dir=run", faults=(Limit("RLIMIT_AS", 4 << 20, STEP),))
    assert done.code == 1, done.err
    assert "memory" in done.said.lower()
    assert "GB" in done.said
    assert "unexpected" not in done.said
