"""What is refused before torch is imported, which takes seconds, and before a library believes what a file says.

A GGUF by its head, which is held against the bytes there are; a folder whose configuration has more layers than its
weights have tensors: a library would build them all, for minutes, before it misses the first.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from bitnet_train.errors import FormatError
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.found import HF_FILE, require_model
from bitnet_train.json_text import parse_json

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def look(source: str) -> None:
    """Raise FormatError, or what `require_model` raises, for what can be no model."""
    found = require_model(source)
    if found.kind == "gguf":
        open_gguf(found.path)
    elif found.kind == "folder":
        _check_layers(found.path)


def _check_layers(folder: Path) -> None:
    try:
        config = parse_json((folder / HF_FILE).read_text(encoding="utf-8"))
        tensors = sum(_count(path) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"`model.source={folder}` cannot be read: {error}") from None
    parts = [config, *(part for part in config.values() if isinstance(part, dict))] if isinstance(config, dict) else []
    counts = [part[name] for part in parts for name in _LAYERS if isinstance(part.get(name), int)]
    if counts and max(counts) > tensors:
        raise FormatError(
            f"`model.source={folder}`: {HF_FILE} has {max(counts):,} layers, and the weights have {tensors:,} tensors. "
            "Files of two models were mixed: copy the folder again."
        )


def _count(path: Path) -> int:
    with safe_open(path, "numpy") as file:
        return len(file.keys())
