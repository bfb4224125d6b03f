"""What is refused before torch is imported, and that what is sound is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.importers.load import tiny_folder
from bitnet_train.serve.playground.workbench.look import look


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(), tmp_path / "model"))


def test_a_sound_folder_passes(folder: Path) -> None:
    look(str(folder))
    look("tiny")


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**6}, {"text_config": {"n_layer": 10**9}}])
def test_more_layers_than_tensors_are_refused(folder: Path, change: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(FormatError, match=r"layers, and the weights have 38 tensors"):
        look(str(folder))


@pytest.mark.parametrize(("name", "content"), [("config.json", b"[" * 9999), ("model.safetensors", b"\x99" * 99)])
def test_what_cannot_be_read_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(FormatError, match="cannot be read"):
        look(str(folder))


def test_it_needs_no_torch() -> None:
    code = "import sys; from bitnet_train.serve.playground.workbench.look import look; look('tiny')"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
