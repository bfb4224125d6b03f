"""Checkpoints that are whole or not there, and that say so by hash.

```
checkpoints/step-000120/state.pt        torch.save of plain numbers, lists, dicts and tensors
                        manifest.json   what it is, its size and hash, sealed (`checkpoint_manifest`)
```

A kill or a full disk leaves every earlier checkpoint as it was (`whole.py`).
Loading checks the hash first and unpickles nothing but plain data (`weights_only=True`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from bitnet_train.disk import needing
from bitnet_train.errors import DiskError, TrainingError
from bitnet_train.train.loop.checkpoint_manifest import (
    ABANDONED,
    MANIFEST,
    SCHEMA,
    STATE,
    damaged,
    list_checkpoints,
    own_run_id,
    sealed,
    sha256_of,
    step_of,
    verify,
)
from bitnet_train.whole import clear_left, move_folder, remove_folder, whole_folder


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
                _write(checkpoint, draft, own_run_id(folder.parent), self.settings)
        except DiskError as error:
            error.add_note(f"Continue the run from its earlier checkpoints: `bitnet-train train {folder.parents[1]}`.")
            raise
        self._prune(folder)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify and load the folder `path` onto the CPU; TrainingError names the file that is damaged."""
        folder = Path(path)
        manifest = verify(folder)
        checkpoint = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        if (held := checkpoint["progress"]["step"]) != manifest["step"]:
            raise damaged(folder / MANIFEST, f"it says step {manifest['step']}, and `{STATE}` holds step {held}")
        return checkpoint

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


def set_aside(folders: Sequence[Path]) -> None:
    """Move checkpoints into the folder `abandoned` beside them, in place of such of an earlier time. Raises DiskError.

    Nothing takes them up from there but `trainer.resume=PATH`.
    """
    for folder in folders:
        move_folder(folder, folder.parent / ABANDONED / folder.name)


def _write(checkpoint: dict[str, Any], draft: Path, run: str, settings: Mapping[str, Any] | None) -> None:
    with (draft / STATE).open("wb") as file:
        torch.save(_plain(checkpoint), file)
    facts = {"bytes": (draft / STATE).stat().st_size, "sha256": sha256_of(draft / STATE)}
    manifest = {
        "schema": SCHEMA,
        "step": checkpoint["progress"]["step"],
        "run": run,
        "versions": {name: _version(name) for name in ("bitnet-train", "torch", "lightning", "transformers")},
        "settings": settings,
        "files": {STATE: facts},
    }
    (draft / MANIFEST).write_text(json.dumps(sealed(manifest), indent=1) + "\n", encoding="utf-8")


def _num_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    if isinstance(value, Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_num_bytes, items))


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
