"""Keys that name files and folders, or may: `~` is the home folder in every one of them, and they are made absolute.

A shell expands `~` only at the start of a word, so `run.dir=~/x` arrives as it was typed. A run is continued from
wherever one stands, so what it reads is written down from the root, and a name on the hub is marked as one
(`importers/source.py`). Where a run or a playground lies stays as it was typed: that is named anew at every call.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError
from bitnet_train.importers.source import absolute, settled_source
from bitnet_train.word_as_path import is_there

_AS_TYPED = ("run.root", "run.dir", "playground.dir", "path")
_PATHS_OF_MIX = ("path", "validation_path")
_MOST_BYTES, _MOST_BYTES_OF_NAME = 4095, 255  # what Linux and macOS take at most
_WORDS = {"trainer.resume": ("never", "auto"), "evaluate.against": ("none",)}


@cache
def path_keys() -> tuple[str, ...]:
    """Return the dotted keys of the schema that are marked as paths."""
    return tuple(name for name, field in known_keys().items() if field.metadata["path"])


def expand_paths(draft: Any) -> None:
    """Replace `~` and `~user` in every path key of a draft.

    Raises `ConfigError` naming the key where no such user is, and for what no file system takes as a path.
    """
    for name in path_keys():
        section, leaf = _owner(draft, name)
        setattr(section, leaf, _expanded(getattr(section, leaf), name))
    for at, entry in enumerate(draft.data.mix):
        for key in _PATHS_OF_MIX:
            _expanded(entry.get(key), f"data.mix[{at}].{key}")


def settle_paths(draft: Any) -> None:
    """Make every path key of a draft absolute, and mark the hub ids."""
    for name in path_keys():
        section, leaf = _owner(draft, name)
        value = getattr(section, leaf)
        if name in _AS_TYPED or isinstance(value, dict):
            continue
        is_list = isinstance(value, list)
        settled = [_settled(draft, name, item) for item in (value if is_list else [value])]
        setattr(section, leaf, settled if is_list else settled[0])
    for entry in draft.data.mix:
        entry |= {key: absolute(entry[key]) for key in _PATHS_OF_MIX if isinstance(entry.get(key), str)}


def _settled(draft: Any, name: str, value: str | None) -> str | None:
    if not value or value in _WORDS.get(name, ()):
        return value
    if known_keys()[name].metadata["model"]:
        return settled_source(value)
    is_name = (name == "data.path" and draft.data.source == "hub") or (name == "bench.llama_bench" and "/" not in value)
    return value if is_name and not is_there(value) else absolute(value)


def _owner(draft: Any, name: str) -> tuple[Any, str]:
    *sections, leaf = name.split(".")
    for section in sections:
        draft = getattr(draft, section)
    return draft, leaf


def _expanded(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_expanded(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _expanded(item, name) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    _refuse_no_path(value, name)
    return _expanded_text(value, name) if value.startswith("~") else value


def _refuse_no_path(text: str, name: str) -> None:
    given = text.encode("utf-8", "surrogatepass")
    longest = max(map(len, given.split(b"/")))
    if len(given) > _MOST_BYTES or longest > _MOST_BYTES_OF_NAME:
        raise ConfigError(
            f"`{name}={text[:40]}...` is too long for a path: {len(given):,} bytes, and {longest:,} between two `/`. "
            f"Allowed: {_MOST_BYTES:,} and {_MOST_BYTES_OF_NAME}."
        )
    if b"\0" in given:
        raise ConfigError(f"`{name}={text!r}` holds the character of code 0, which no path may. Write it again.")


def _expanded_text(text: str, name: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ConfigError(
            f"`{name}={text}`: no home folder is known for `{Path(text).parts[0]}`. "
            f"Write the whole path, or `./{text}` for a file that is called so."
        ) from None
