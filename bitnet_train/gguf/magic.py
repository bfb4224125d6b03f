"""How a GGUF file is told from others: by its first four letters, whatever it is called. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.word_as_path import is_file, is_folder

MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a file starts as a GGUF does; one that is called `*.gguf` is meant to be one, even if it is not there."""
    if path.suffix.lower() == ".gguf":
        return not is_folder(path)
    if not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
