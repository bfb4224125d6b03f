"""Which checkpoint `trainer.resume` asks for; nothing heavy is imported, so that a call is refused at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.checkpoint_manifest import (
    check_own,
    find_latest,
    find_readable,
    is_checkpoint_name,
    list_checkpoints,
    read_manifest,
)
from bitnet_train.word_as_path import is_folder


def resume_from(resume: str, directory: Path, say: Callable[[str], object]) -> Path | None:
    """Return the checkpoint that `trainer.resume` asks for, None to start anew; `say` names those passed over.

    Raises
    ------
    ConfigError
        When `never` would mix two runs in one directory, or a path names no checkpoint.
    TrainingError
        When a path names a damaged checkpoint or one of another run, or `auto` finds none that can be used.
    """
    if resume == "auto":
        return find_latest(directory, say)
    if resume == "never":
        _require_empty(directory)
        return None
    return _named(Path(resume), directory)


def check_choice(resume: str, directory: Path) -> Path | None:
    """Do as `resume_from`, by the manifests alone: what is in the states is hashed when training starts."""
    return find_readable(directory) if resume == "auto" else resume_from(resume, directory, say=str)


def _require_empty(directory: Path) -> None:
    if list_checkpoints(directory):
        raise ConfigError(
            f"`trainer.resume=never`, but {directory} has checkpoints of an earlier run, which would be lost. "
            "Use `trainer.resume=auto` to go on, or another `run.dir`."
        )


def _named(folder: Path, directory: Path) -> Path:
    if not is_folder(folder) or not is_checkpoint_name(folder.name):
        raise ConfigError(
            f"`trainer.resume={folder}` is neither `auto`, `never` nor a checkpoint folder like step-000120."
            f"{_instead(folder)}"
        )
    check_own(folder, directory, read_manifest(folder))
    return folder


def _instead(folder: Path) -> str:
    """Say what a path that names no checkpoint names, with what to name."""
    if not is_folder(folder):
        return " There is no such folder."
    inside = [*list_checkpoints(folder), *list_checkpoints(folder / "checkpoints")]
    return f" It holds checkpoints: name one of them, such as {inside[-1]}, or `auto`." if inside else ""
