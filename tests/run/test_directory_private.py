from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bitnet_train.run.directory import RunDirectory


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ("logger: {custom: {api_key: abcdef0123456789}}\n", 0o600),
        ("logger: {custom: {save_dir: 'https://me:secret@host/x'}}\n", 0o600),
        ("logger: {project: mine}\ntrainer: {max_tokens: 3}\n", 0o644),
    ],
)
def test_a_configuration_with_a_secret_is_for_its_owner_alone(config: str, mode: int, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        directory = RunDirectory(tmp_path / "run")
        directory.create(config)
        assert stat.S_IMODE(directory.config.stat().st_mode) == mode
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
