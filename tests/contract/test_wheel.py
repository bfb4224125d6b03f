"""What is installed is what was checked out: one real wheel, built without the C++ part to be quick."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    settings = [f"--config-settings={setting}" for setting in ("wheel.cmake=false", "wheel.py-api=py3")]
    options = ["--no-deps", "--quiet", "--wheel-dir", str(out), *settings]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), *options], check=True, timeout=280)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "installed", "pattern"),
    [
        ("configs", "bitnet_train/configs", "**/*.yaml"),
        ("recipes", "bitnet_train/recipes", "**/*.yaml"),
        ("bitnet_train/assets", "bitnet_train/assets", "**/*.*"),
        ("bitnet_train", "bitnet_train", "**/*.py"),
    ],
)
def test_the_wheel_holds_every_file_of(folder: str, installed: str, pattern: str, wheel_names: set[str]) -> None:
    expected = {f"{installed}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).glob(pattern)}
    assert expected, f"{folder} is empty"
    assert expected <= wheel_names


@pytest.mark.slow
def test_the_wheel_holds_no_sources_of_the_kernels_and_no_tests(wheel_names: set[str]) -> None:
    assert [name for name in wheel_names if "csrc" in name or name.startswith(("tests/", "scripts/"))] == []


def test_tests_find_the_installed_package_before_the_checkout(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("pythonpath") == [], "pytest puts these first, and a checkout may lack the kernels"


def test_the_bundled_model_is_at_most_12_mb() -> None:
    assert (ROOT / "bitnet_train" / "assets" / "tiny" / "model.safetensors").stat().st_size <= 12_000_000
