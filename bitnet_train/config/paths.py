"""Keys that name files and folders, or may (a hub id stays as it is): `~` is the home folder in every one of them.

A shell expands `~` only at the start of a word, so `run.dir=~/x` arrives as it was typed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError


@cache
def path_keys() -> tuple[str, ...]:
    """Return the dotted keys of the schema that are marked as paths."""
    return tuple(name for name, field in known_keys().items() if field.metadata["path"])


def expand_paths(config: Any) -> None:
    """Replace `~` and `~user` in every path key of a `Config`; `ConfigError` names the key where no such user is."""
    for name in path_keys():
        section, leaf = _owner(config, name)
        setattr(section, leaf, _expanded(getattr(section, leaf), name))


def _owner(config: Any, name: str) -> tuple[Any, str]:
    *sections, leaf = name.split(".")
    for section in sections:
        config = getattr(config, section)
    return config, leaf


def _expanded(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_expanded(item, name) for item in value]
    if isinstance(value, dict):
        return {key: _expanded(item, name) for key, item in value.items()}
    return _expanded_text(value, name) if isinstance(value, str) and value.startswith("~") else value


def _expanded_text(text: str, name: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ConfigError(
            f"`{name}={text}`: no home folder is known for `{Path(text).parts[0]}`. "
            f"Write the whole path, or `./{text}` for a file that is called so."
        ) from None
