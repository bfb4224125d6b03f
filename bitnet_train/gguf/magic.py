"""How a GGUF file is told from others: by its first four letters, whatever it is called. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a file starts as a GGUF does; one that is called `*.gguf` is meant to be one, even if it is not there."""
    if path.suffix.lower() == ".gguf":
        return not path.is_dir()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
