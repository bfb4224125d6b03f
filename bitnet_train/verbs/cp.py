"""`bitnet-train cp`: a copy of a recipe to edit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bitnet_train.config.layout import recipes
from bitnet_train.config.target import find_target
from bitnet_train.errors import ConfigError
from bitnet_train.verbs import Call
from bitnet_train.word_as_path import is_folder, is_there, path_of


def cp(call: Call) -> dict[str, Any]:
    """Copy a recipe, or the saved configuration of a run, to a file to edit; never over a file that exists."""
    if not call.words:
        raise ConfigError(f"`bitnet-train cp` needs a recipe: {', '.join(recipes())}.")
    recipe, *given = call.words
    target = find_target(recipe)
    source = recipes().get(recipe, Path(target.label))
    file_name = f"{Path(target.name).name}.yaml"
    to = path_of(given[0] if given else file_name)
    if is_folder(to):
        to = to / file_name
    if to.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"`{to}`: a recipe's name ends in .yaml. Write `{to}.yaml`.")
    if is_there(to):
        raise ConfigError(f"{to} exists already and is kept. Name another file: `bitnet-train cp {target.name} FILE`.")
    if not source.is_file():
        raise ConfigError(f"`{recipe}` has no configuration to copy. Recipes: {', '.join(recipes())}.")
    try:
        shutil.copyfile(source, to)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}. Name a folder that exists.") from error
    if not call.quiet:
        print(f"Copied {target.label} to {to}. Edit it, then: bitnet-train run {to}")
    return {"from": str(source), "to": str(to)}
