"""Importing the package, and asking for help, brings in nothing heavy; public names arrive on first use."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import bitnet_train
from bitnet_train.verbs import VERBS

HEAVY = ("torch", "numpy", "lightning", "transformers", "peft", "datasets", "wandb", "hydra", "omegaconf", "rich")


def heavy_after(code: str) -> list[str]:
    """Run `code` in a fresh interpreter and return which heavy packages it brought in."""
    end = f"import sys; print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{end}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return eval(done.stderr.splitlines()[-1])


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_after("import bitnet_train, bitnet_train.errors; dir(bitnet_train)") == []


def test_the_schema_imports_nothing_heavy() -> None:
    assert heavy_after("import bitnet_train.config") == []


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import bitnet_train.__main__ as m\nassert m.main({arguments!r}) == 0"
    assert heavy_after(code) == []


@pytest.mark.slow
def test_composing_and_showing_a_configuration_imports_no_torch() -> None:
    found = heavy_after("import bitnet_train.__main__ as m\nassert m.main(['show', 'quickstart']) == 0")
    assert "torch" not in found
    assert "hydra" in found


def test_every_public_name_arrives_on_first_use() -> None:
    for name in bitnet_train.__all__:
        assert getattr(bitnet_train, name) is not None
        assert name in dir(bitnet_train)
    verbs = ["convert", "attach", "merge", "export", "load", "validate"]
    assert all(callable(getattr(bitnet_train, name)) for name in verbs)


def test_export_is_a_function_whatever_was_imported_first() -> None:
    early = bitnet_train.export
    import_module("bitnet_train.packed")
    home = import_module("bitnet_train.exporters.packed")
    assert bitnet_train.export is early is home.export_packed


def test_an_unknown_public_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"Public names: .*convert"):
        bitnet_train.quantise_everything  # noqa: B018


def test_the_version_is_the_one_in_pyproject() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == bitnet_train.__version__
