"""How large the packed folder is beside the model that it was made from, as that was given."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.config import Config
from bitnet_train.importers.load import source_bytes
from bitnet_train.packed.names import WEIGHTS_NAME
from bitnet_train.run.result import FolderSize, ModelSize


def folder_size(config: Config, artefact: Path) -> FolderSize:
    """Return the bytes of all files of the folder, of its weights among them, and of the original where it is known."""
    files = [path for path in artefact.iterdir() if path.is_file()]
    return FolderSize(
        folder_bytes=sum(path.stat().st_size for path in files),
        weights_bytes=(artefact / WEIGHTS_NAME).stat().st_size,
        original_bytes=source_bytes(config.model.source),
        tables=config.weight.tables,
    )


def spoken(size: ModelSize) -> str:
    """Return `48.7 MB, the original 98.4 MB`."""
    original = size.original_bytes
    return megabytes(size.folder_bytes) + (f", the original {megabytes(original)}" if original else "")


def warning(size: ModelSize) -> str | None:
    """Say that the folder is not smaller than the original and what to do; None where it is, or not known."""
    original, folder = size.original_bytes, size.folder
    if not original or folder is None or folder.folder_bytes < original:
        return None
    advice = (
        "Embedding and head are floats: train with `weight.tables=int8`."
        if folder.tables == "exact"
        else "Make more of it 1-bit: `model.roles=[attention,mlp,embedding,head]`."
    )
    return (
        f"the folder ({megabytes(folder.folder_bytes)}) is not smaller than the original ({megabytes(original)}): its "
        f"1-bit layers take {megabytes(size.one_bit_bytes)}, the rest embedding, head and tokenizer. {advice}"
    )


def megabytes(num_bytes: int) -> str:
    """Return `48.7 MB`, with two digits after the point below 10."""
    megabyte = num_bytes / 1e6
    return f"{megabyte:.2f} MB" if megabyte < 10 else f"{megabyte:.1f} MB"
