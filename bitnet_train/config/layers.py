"""The layers of a composition, weakest first, each with the name of the file it came from.

The order is the order of the defaults list in `configs/main.yaml`; the command line comes last. Hydra merges the same
layers; reading them here too is what lets an error, and `bitnet-train show`, name the file behind every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from bitnet_train.config.layout import groups, house, label
from bitnet_train.config.suggest import did_you_mean
from bitnet_train.config.target import read_yaml
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.config.words import Words, checked_choice
from bitnet_train.errors import ConfigError

_GLOBAL = "# @package _global_"


@dataclass(frozen=True)
class Layer:
    """One file's (or the command line's) values, nested as in `Config`; `group` where it is a named choice."""

    origin: str
    values: dict[str, Any]
    group: str | None = None


def choices(content: Mapping[str, Any], origin: str, words: Words) -> dict[str, str]:
    """Return the chosen file of every group: `main.yaml`, then the recipe's defaults list, then the command line.

    Raises `ConfigError` naming `origin` for a group or a choice that does not exist.
    """
    chosen = {name: choice for name, choice in _main_defaults() if name in groups()}
    entries = content.get("defaults", [])
    if not isinstance(entries, list):  # null too: Hydra takes a list and nothing else
        raise ConfigError(
            f"{origin}: `defaults` must be a list of entries such as `- override /weight: ternary_row`, not "
            f"{entries!r}. Drop it where the recipe chooses no group."
        )
    for entry in entries:
        name, choice = _recipe_default(entry, origin)
        chosen[name] = checked_choice(name, choice, origin)
    return chosen | words.choices


def layers(chosen: Mapping[str, str], content: Mapping[str, Any], recipe: str, words: Words) -> list[Layer]:
    """Return every layer, weakest first."""
    main = house() / "configs" / "main.yaml"
    found: list[Layer] = []
    for name, _ in _main_defaults():
        if name == "_self_":
            found.append(Layer(label(main), _body(read_yaml(main))))
        elif name == "recipe":
            found.append(Layer(recipe, _body(content)))
        elif name in chosen:
            found.append(group_layer(name, groups()[name][chosen[name]]))
    return [*found, Layer(COMMAND_LINE, _nested(words.values))]


def _main_defaults() -> list[tuple[str, Any]]:
    entries = read_yaml(house() / "configs" / "main.yaml")["defaults"]
    return [next(iter(entry.items())) if isinstance(entry, dict) else (entry, None) for entry in entries]


def _recipe_default(entry: Any, origin: str) -> tuple[str, Any]:
    name, choice = next(iter(entry.items())) if isinstance(entry, dict) and entry else (str(entry), None)
    group = name.removeprefix("override /")
    if group == name or group not in groups():
        raise ConfigError(
            f"{origin}: `defaults` has the entry `{name}`, which is not `override /GROUP: CHOICE`."
            f"{did_you_mean(group.split('/')[-1], groups())} Groups: {', '.join(groups())}."
        )
    return group, choice


def group_layer(group: str, path: Path) -> Layer:
    """Return the values of one choice of a group, under the names of the sections that it sets."""
    content = read_yaml(path)
    is_global = path.read_text(encoding="utf-8").startswith(_GLOBAL)  # Hydra reads it from the first lines only
    return Layer(label(path), content if is_global else {group: content}, group)


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "defaults"}


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    made = OmegaConf.create()
    for name, value in values.items():
        OmegaConf.update(made, name, value, merge=False, force_add=True)
    container = OmegaConf.to_container(made)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}
