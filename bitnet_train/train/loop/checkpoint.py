"""Checkpoints that are whole or not there, and that say so by hash.

```
checkpoints/step-000120/state.pt        torch.save of plain numbers, lists, dicts and tensors
                        manifest.json   schema, step, versions, settings, and per file: size in bytes, SHA-256
```

A kill or a full disk leaves every earlier checkpoint as it was (`whole.py`).
Loading checks the hash first and unpickles nothing but plain data (`weights_only=True`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from bitnet_train.disk import needing
from bitnet_train.errors import DiskError, TrainingError
from bitnet_train.whole import clear_left, remove_folder, whole_folder

SCHEMA = 1
STATE = "state.pt"
MANIFEST = "manifest.json"
_FOLDER = re.compile(r"step-(\d+)")
_CHUNK_BYTES = 1 << 20


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to disk; `path` is the folder of one checkpoint. `keep_last` earlier-or-equal steps stay.

    `protected` are further ones that stay: the best, and the last good one while a run seems to diverge. `settings` are
    what was trained under, plain JSON, for whoever asks the manifest.
    """

    def __init__(self, keep_last: int = 2, settings: Mapping[str, Any] | None = None) -> None:
        self.keep_last, self.settings = keep_last, settings
        self.protected: frozenset[Path] = frozenset()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to the folder `path`, then remove the oldest ones.

        Raises
        ------
        TrainingError
            When a tensor is not finite. Earlier checkpoints remain.
        DiskError
            When the disk is full, read-only or not permitted. Earlier checkpoints remain.
        """
        folder = Path(path)
        _check_tensors_finite(checkpoint["state_dict"], folder)
        try:
            with whole_folder(folder) as draft, needing(_num_bytes(checkpoint)):
                _write(checkpoint, draft, self.settings)
        except DiskError as error:
            error.add_note(f"Continue the run from its earlier checkpoints: `bitnet-train train {folder.parents[1]}`.")
            raise
        self._prune(folder)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify and load the folder `path` onto the CPU; TrainingError names the file that is damaged."""
        verify(Path(path))
        return torch.load(Path(path) / STATE, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder; renamed first, so that a half-deleted one never looks whole."""
        remove_folder(Path(path))

    def _prune(self, newest: Path) -> None:
        step = step_of(newest)
        earlier = [folder for folder in list_checkpoints(newest.parent) if step_of(folder) <= step]
        for folder in earlier[: -self.keep_last]:
            if folder not in self.protected:
                self.remove_checkpoint(folder)
        clear_left(newest.parent)


def folder_name(step: int) -> str:
    """Return the folder name of a step: `step-000120`."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """Return the step that a checkpoint's folder name states; TrainingError for any other name."""
    match = _FOLDER.fullmatch(folder.name)
    if match is None:
        raise TrainingError(f"{folder} is not a checkpoint: its folder name is not like `step-000120`.")
    return int(match[1])


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoint folders in `directory` by ascending step, whole or not."""
    if not directory.is_dir():
        return []
    return sorted((path for path in directory.iterdir() if _FOLDER.fullmatch(path.name)), key=step_of)


def find_latest(directory: Path, say: Any = print) -> Path | None:
    """Return the newest whole checkpoint, or None; every damaged newer one is skipped and named through `say`."""
    for folder in reversed(list_checkpoints(directory)):
        try:
            verify(folder)
        except TrainingError as error:
            say(f"Skipping a damaged checkpoint. {error}")
        else:
            return folder
    return None


def verify(folder: Path) -> dict[str, Any]:
    """Check sizes and hashes of a checkpoint and return its manifest.

    Raises
    ------
    TrainingError
        When a file is missing, truncated or changed, or the manifest is unreadable or of a newer schema: names it.
    """
    manifest = read_manifest(folder)
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "it is missing")
        if path.stat().st_size != facts["bytes"]:
            raise _damaged(path, f"it has {path.stat().st_size} bytes instead of {facts['bytes']}")
        if _sha256(path) != facts["sha256"]:
            raise _damaged(path, "its SHA-256 differs from the manifest's")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint without looking at its other files; TrainingError when it is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema = manifest["schema"]
        readable = set(manifest["files"]) == {STATE} and all(
            {"bytes", "sha256"} <= set(f) for f in manifest["files"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    if schema != SCHEMA:
        raise TrainingError(f"{path} has schema {schema}; this version reads {SCHEMA}. Update bitnet-train.")
    if not readable:
        raise _damaged(path, f"it must list exactly `{STATE}` with `bytes` and `sha256`")
    return manifest


def _damaged(path: Path, why: str) -> TrainingError:
    return TrainingError(f"{path} is damaged: {why}. Use an earlier checkpoint (`trainer.resume=PATH`) or start anew.")


def _write(checkpoint: dict[str, Any], draft: Path, settings: Mapping[str, Any] | None) -> None:
    with (draft / STATE).open("wb") as file:
        torch.save(_plain(checkpoint), file)
    facts = {"bytes": (draft / STATE).stat().st_size, "sha256": _sha256(draft / STATE)}
    manifest = {
        "schema": SCHEMA,
        "step": checkpoint["progress"]["step"],
        "versions": {name: _version(name) for name in ("bitnet-train", "torch", "lightning", "transformers")},
        "settings": settings,
        "files": {STATE: facts},
    }
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _num_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_num_bytes, items))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Copy containers as plain dicts and lists; TypeError for anything that `weights_only` could not load."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise TypeError(f"A checkpoint holds plain data only, not {type(value).__name__}: {value!r}")


def _check_tensors_finite(tensors: Mapping[str, Tensor], folder: Path) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainingError(
                f"`{name}` is not finite, so {folder} was not written; earlier checkpoints are untouched. "
                "Lower `optimizer.lr` and continue with `trainer.resume=auto`."
            )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
