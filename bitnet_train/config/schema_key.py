"""What a key of the schema says of itself."""

from __future__ import annotations

from typing import Any

REQUIRED: Any = "???"  # OmegaConf's mark of a value that a file or the command line must give


def key(doc: str, *choices: str, path: bool = False, model: bool = False) -> dict[str, Any]:
    """Return the metadata of one configuration key: its one-line meaning with the unit, and its allowed values.

    `path` marks a key that names files or folders, or may, `model` one of them that may be `tiny` or a hub id:
    `config.paths` expands `~` in it, and makes it absolute.
    """
    return {"doc": doc, "choices": choices, "path": path, "model": model}
