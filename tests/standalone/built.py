"""The stand-alone library and program, compiled by their own CMake file and kept until a source changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "bitnet_train" / "kernels" / "csrc"
QUICK = ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DBITNET_TRAIN_OPTIMISATION=-O1")
"""Half the time that a build to be used takes; the numbers are the same."""


def third_party() -> str:
    """The folder of the libraries; the test is skipped where they were not fetched, or nothing can be compiled."""
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    done = subprocess.run([ROOT / "scripts" / "fetch_tokenizers", "--cached"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("needs the C++ libraries that `scripts/fetch_tokenizers` fetches once")
    return done.stdout.strip()


def built(kept: Path, target: str, *options: str) -> Path:
    """The folder in which `target` was built with these options of CMake; an older build is continued.

    One process builds at a time, and those that come after it find everything there.
    """
    folder = kept / hashlib.sha256(repr(options).encode()).hexdigest()[:16]
    configure = ("cmake", "-S", str(CSRC / "standalone"), "-B", str(folder), f"-DBITNET_THIRD_PARTY={third_party()}")
    commands = (*configure, "-DBITNET_TRAIN_WERROR=ON", *options), ("cmake", "--build", folder, "--target", target)
    with FileLock(f"{folder}.lock"):
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return folder
