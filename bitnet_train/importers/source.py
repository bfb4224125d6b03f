"""What `model.source` names, and how it is written down so that it names the same from every working directory.

    tiny                the bundled model
    a path              what exists, or can only be one: absolute once it is written down
    hub:OWNER/NAME      a name on the hub, and nothing else; OWNER/NAME is one where no file or folder is called so

Written down as it was typed, `models/llama` would be looked up again from wherever a run is continued, and where
nothing is called so there, fetched from whoever owns that name on the hub. Nothing heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path

from bitnet_train.word_as_path import is_there, path_of

TINY = "tiny"
HUB = "hub:"


def settled_source(source: str) -> str:
    """A source as it is written down: the same model from every working directory."""
    if source == TINY or source.startswith(HUB):
        return source
    return absolute(source) if looks_like_path(source) else f"{HUB}{source}"


def looks_like_path(source: str) -> bool:
    """Whether a source is a file or folder, or can only be one: a hub id has one slash at most and no `.gguf`."""
    if source.startswith(HUB):
        return False
    path = path_of(source)
    is_file_name = path.suffix.lower() == ".gguf"
    return (
        path.is_absolute() or is_there(path) or source.startswith((".", "~")) or source.count("/") > 1 or is_file_name
    )


def absolute(path: str) -> str:
    """A path from the root; its links and `..` stay as they are."""
    return str(path_of(path).absolute())


def hub_id(source: str) -> str:
    """A source without the mark of a hub id."""
    return source.removeprefix(HUB)


def public_name(source: str) -> str:
    """What to call a model where others read it: a hub id, or the last part of a path, not where it lies here."""
    return Path(source).name if Path(source).is_absolute() else hub_id(source)
