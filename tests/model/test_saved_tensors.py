"""Safetensors files have the mode of every other file, and no file is written past the one place that sees to it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bitnet_train.model.saved_tensors import follow_umask, save_arrays, save_module, save_tensors

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
FORM = {"format": "pt"}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_of_tensors_has_the_mode_of_a_file_beside_it(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        save_tensors({"a": torch.ones(2)}, tmp_path / "tensors", FORM)
        save_arrays({"a": np.ones(2)}, tmp_path / "arrays", FORM)
        save_module(nn.Linear(1, 1), tmp_path / "module", FORM)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("plain", "tensors", "arrays", "module"), oct(0o666 & ~mask))


def test_asking_for_the_mode_leaves_no_file_and_changes_no_umask(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    follow_umask(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_nothing_else_in_the_package_makes_files_of_a_private_mode() -> None:
    private = re.compile(r"safetensors\S* import \S*save_(file|model)|mkstemp|mkdtemp|NamedTemporaryFile")
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if private.search(path.read_text("utf-8"))
    }
    assert found == {"model/saved_tensors.py"}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
