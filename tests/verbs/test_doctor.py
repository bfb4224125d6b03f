"""What `doctor` says of the extension is what loading it says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import bitnet_train

ASK = "from bitnet_train.verbs.doctor import _extension; said = _extension(); print(said.state, said.value)"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "note not built"), (b"junk", "broken there, and cannot be loaded"), (b"", "broken")]
)
def test_an_extension_that_cannot_be_loaded_is_not_called_built(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    package = tmp_path / "bitnet_train"
    left_out = shutil.ignore_patterns("_core*", "csrc", "assets", "__pycache__")
    shutil.copytree(Path(bitnet_train.__file__).parent, package, ignore=left_out)
    if content is not None:
        (package / "kernels" / f"_core{EXTENSION_SUFFIXES[0]}").write_bytes(content)
    alone = f"import sys; from importlib.machinery import PathFinder; sys.path.insert(0, {str(tmp_path)!r})\n"
    first = "sys.meta_path.insert(0, PathFinder)  # before an editable install's finder\n"
    done = subprocess.run([sys.executable, "-c", alone + first + ASK], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(said), done.stderr
