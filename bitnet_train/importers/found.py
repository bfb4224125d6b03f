"""What a word that names a model names: the one place that decides. Nothing heavy is imported, nothing is opened.

tiny          the model inside this package
gguf          a GGUF file, whatever it is called (its first four bytes say so)
run           a folder with the configuration of a run
packed        a folder that this package packed
merged        a trained 1-bit model in float32, as `merge` leaves it
export        a model that this package wrote in another format
adapter       a PEFT adapter
folder        a Hugging Face folder
file          another file
empty         a folder that holds no model
missing       a path where there is nothing
hub           a hub id
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bitnet_train.errors import ConversionError
from bitnet_train.gguf.magic import is_gguf
from bitnet_train.importers.source import TINY, looks_like_path
from bitnet_train.model.folder_names import RECORD_FILE
from bitnet_train.packed.looks_packed import looks_packed
from bitnet_train.packed.names import CONFIG_NAME, EXPORT_NAME
from bitnet_train.word_as_path import is_file, is_folder, path_of

Kind = Literal[
    "tiny", "gguf", "run", "packed", "merged", "export", "adapter", "folder", "file", "empty", "missing", "hub"
]
RUN_FILE, ADAPTER_FILE, HF_FILE = "config.yaml", "adapter_config.json", CONFIG_NAME

ALLOWED = (
    "Allowed: `tiny`, a directory with config.json, a *.gguf file (with `pip install 'bitnet-train[gguf]'`), or a hub "
    "id such as owner/name."
)


@dataclass(frozen=True)
class Found:
    """The kind of thing, and where it lies; of a hub id the path means nothing."""

    kind: Kind
    path: Path


def find_model(source: str) -> Found:
    """Tell what `source` names."""
    path = path_of(source)
    if source == TINY:
        return Found("tiny", path)
    if is_gguf(path):
        return Found("gguf" if is_file(path) else "missing", path)
    if is_folder(path):
        return Found(_kind_of_folder(path), path)
    if is_file(path):
        return Found("file", path)
    return Found("missing" if looks_like_path(source) else "hub", path)


def require_model(source: str, key: str = "model.source") -> Found:
    """Return what `source` names; ConversionError, which names the `key`, where no model can be there."""
    found = find_model(source)
    if found.kind == "file":
        raise ConversionError(f"`{key}={source}` is a file, but no GGUF. {ALLOWED}")
    if found.kind == "missing":
        what = "file" if found.path.suffix.lower() == ".gguf" else "directory"
        raise ConversionError(f"`{key}={source}`: there is no such {what} ({found.path.absolute()}). {ALLOWED}")
    if found.kind == "empty":
        raise ConversionError(f"`{key}={source}` has no {HF_FILE}, so it holds no model. {ALLOWED}")
    return found


def _kind_of_folder(folder: Path) -> Kind:
    """Tell what a folder holds: what this package wrote first, for a packed folder is a Hugging Face folder too."""
    if looks_packed(folder):
        return "packed"
    marks: dict[str, Kind] = {
        ADAPTER_FILE: "adapter",
        RECORD_FILE: "merged",
        RUN_FILE: "run",
        EXPORT_NAME: "export",
        HF_FILE: "folder",
    }
    for name, kind in marks.items():
        if is_file(folder / name):
            return kind
    return "empty"
