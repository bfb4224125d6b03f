"""Where `configs/` and `recipes/` lie: beside the package in a checkout or editable install, inside it in a wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bitnet_train.errors import ConfigError

RECIPE_FOLDERS = ("baselines",)  # of `recipes/`; its other folders hold results and grids of runs


@cache
def house() -> Path:
    """Return the folder that holds `configs/` and `recipes/`.

    Raises `ConfigError` where neither the package nor its parent has them, which is a broken installation.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package, package.parent):
        if (folder / "configs" / "main.yaml").is_file() and (folder / "recipes").is_dir():
            return folder
    raise ConfigError(
        f"`configs/main.yaml` and `recipes/` are neither in {package} nor beside it. "
        "The installation is incomplete: install bitnet-train again."
    )


@cache
def groups() -> dict[str, dict[str, Path]]:
    """Return every configuration group with its choices and the file of each."""
    folders = sorted(path for path in (house() / "configs").iterdir() if path.is_dir())
    return {folder.name: _files_by_name(folder) for folder in folders}


@cache
def recipes() -> dict[str, Path]:
    """Return the bundled recipes by name; those of a sub-folder as `FOLDER/NAME`."""
    found = _files_by_name(house() / "recipes")
    for folder in RECIPE_FOLDERS:
        found |= {f"{folder}/{name}": path for name, path in _files_by_name(house() / "recipes" / folder).items()}
    return found


def label(path: Path) -> str:
    """Name a file for people: relative to the house for bundled files, as given otherwise."""
    absolute = path.resolve()
    return absolute.relative_to(house()).as_posix() if absolute.is_relative_to(house()) else str(path)


def _files_by_name(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
