"""The command line's first word: a recipe's name, a recipe file, a run directory, an artefact directory, or a model.

A run directory is a folder with the `config.yaml` that its run saved; an artefact directory has a `manifest.json`. An
artefact that still lies inside its run directory brings that run's configuration along. A model is what this package
does not work on but can look at: a GGUF file, an export in another format, a Hugging Face folder. `tiny` is the model
inside this package.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bitnet_train.config.layout import label, recipes
from bitnet_train.config.older import as_it_ran
from bitnet_train.config.seal import fault_of, is_edited
from bitnet_train.config.suggest import did_you_mean
from bitnet_train.config.yaml_text import check_bounds, read_text
from bitnet_train.errors import ConfigError
from bitnet_train.importers.found import HF_FILE, RUN_FILE, find_model
from bitnet_train.importers.source import TINY
from bitnet_train.packed.names import MANIFEST_NAME
from bitnet_train.word_as_path import is_file, is_folder, is_there, path_of

Kind = Literal["none", "recipe", "run", "artefact", "model", "bundled model"]
_MODELS = ("gguf", "export", "folder", "merged")  # not worked on, but looked at
_MOST_SHOWN = 100  # characters of a word that names nothing


@dataclass(frozen=True)
class Target:
    """What the first word names, and the YAML that comes with it (empty where there is none)."""

    kind: Kind = "none"
    name: str = "none"
    label: str = ""
    content: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # the run or artefact directory, or the model, itself
    run_dir: Path | None = None
    note: str = ""  # what a person should know of it


def find_target(word: str | None) -> Target:
    """Tell what `word` names and read its YAML.

    Raises `ConfigError` for a word that names nothing, a folder that is neither a run nor an artefact, and a file that
    is not YAML.
    """
    if word is None:
        return Target()
    path = path_of(word)
    if word == TINY:
        return Target("bundled model", TINY, TINY, path=Path(TINY))
    if word in recipes():
        return _recipe(recipes()[word], word)
    if find_model(word).kind in _MODELS and is_there(path):
        return Target("model", path.stem, str(path), path=path)
    if is_folder(path):
        return _directory(path)
    if is_file(path) or path.suffix in {".yaml", ".yml"}:
        return _recipe(path, path.stem)
    raise ConfigError(
        f"`{_shown(word)}` is neither a recipe nor a file nor a directory.{did_you_mean(word, recipes())} "
        f"Recipes: {', '.join(recipes())}. `bitnet-train ls` shows recipes, choices and runs."
    )


def _shown(word: str) -> str:
    return word if len(word) <= _MOST_SHOWN else f"{word[:_MOST_SHOWN]}..."


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file as plain dictionaries; `ConfigError` names the file, and the line if known."""
    try:
        content = deepcopy(_parsed(label(path), read_text(path, label(path))))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. `bitnet-train cp RECIPE` makes one to edit.") from None
    except ConfigError:
        raise
    except (YAMLError, OmegaConfBaseException, ValueError, OSError) as error:
        raise ConfigError(f"{label(path)}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{label(path)}: the file must hold `key: value` lines, got a {type(content).__name__}.")
    return {str(name): value for name, value in content.items()}


def read_saved(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run; `ConfigError` where it is not whole, for what is lost would be a default."""
    try:
        content = read_yaml(path)
        fault = fault_of(read_text(path, label(path)), content)
    except ConfigError as error:
        raise ConfigError(f"{error}{_way_out(path)}") from None
    if fault is not None:
        raise ConfigError(f"{path} is cut short: {fault}.{_way_out(path)}")
    return content


def _way_out(path: Path) -> str:
    return (
        " Bring a copy of it back, or have it written anew by the call that began the run, with its own words: "
        f"`bitnet-train train RECIPE KEY=VALUE ... run.dir={path.parent} trainer.resume=auto`."
    )


@lru_cache(maxsize=256)
def _parsed(name: str, text: str) -> Any:
    """Parse a file that holds `text`: one that has not changed is parsed once."""
    check_bounds(text, name)
    return OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=False)


def _recipe(path: Path, name: str) -> Target:
    return Target("recipe", name, label(path), read_yaml(path))


def _directory(path: Path) -> Target:
    is_artefact = (path / MANIFEST_NAME).is_file()
    run_dir = next((folder for folder in (path, path.absolute().parent) if (folder / RUN_FILE).is_file()), None)
    if is_artefact and run_dir is None:
        return Target("artefact", path.name, str(path), path=path)
    if run_dir is None or (run_dir != path and not is_artefact):
        raise ConfigError(
            f"{path}: neither a run directory (it has no `{RUN_FILE}`) nor an artefact (it has no `{MANIFEST_NAME}`) "
            f"nor a model (it has no `{HF_FILE}`). `bitnet-train ls` lists the runs."
        )
    saved = run_dir / RUN_FILE
    content = as_it_ran(read_saved(saved))
    name = str(content.get("recipe", run_dir.name))
    note = f"{saved} was edited after its run wrote it." if is_edited(read_text(saved, label(saved))) else ""
    return Target("artefact" if is_artefact else "run", name, str(saved), content, path, run_dir, note)
