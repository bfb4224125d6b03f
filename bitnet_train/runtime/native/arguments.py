"""What a native model is given beside prompts and settings is of its kind, or a ConfigError that names it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConfigError


def path_from(name: str, value: Any) -> Path:
    """Return a path that is given as a text or a path."""
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes) or not os.fspath(value):
        raise _refused(name, value, "the path of a file or folder")
    return Path(value)


def function_from(name: str, value: Any) -> Any:
    """Return a function, or None."""
    if value is not None and not callable(value):
        raise _refused(name, value, "a function, or None")
    return value


def whole_number_from(name: str, value: Any, default: int) -> int:
    """Return a whole number of at least 1, `default` for None."""
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise _refused(name, value, "a whole number, 1 or more")
    return value


def choice_from(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of the words that are allowed."""
    if value not in choices:
        raise _refused(name, value, " or ".join(choices))
    return str(value)


def _refused(name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(f"`{name}={str(value)[:60]}` is out of range: it must be {allowed}.")
