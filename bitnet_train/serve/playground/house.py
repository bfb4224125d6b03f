"""What the playground needs of the rooms above this one, which it may not import: its verb hands it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class House:
    """Recipes, configurations and runs.

    recipes
        The recipes of the package: names, and a line of each.
    recipe_content
        The YAML of one of them.
    check
        Composes a recipe with `key=value` words, and raises ConfigError where that is wrong.
    path_keys
        The keys that name files or folders.
    saved_config
        The configuration that a run saved, flat, by dotted key, without secrets.
    is_running
        Whether a process works in a run's folder.
    run_root
        The folder of all runs.
    """

    recipes: Callable[[], Mapping[str, str]]
    recipe_content: Callable[[str], Mapping[str, Any]]
    check: Callable[[str, Sequence[str]], object]
    path_keys: Callable[[], Sequence[str]]
    saved_config: Callable[[Path], Mapping[str, Any]]
    is_running: Callable[[Path], bool]
    run_root: Path
