"""A recipe with words of the command line written into it: the file that makes `RECIPE word word ...` one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml

from bitnet_train.config.check import flatten
from bitnet_train.config.compose import compose, to_dict
from bitnet_train.config.layers import group_layer
from bitnet_train.config.layout import groups
from bitnet_train.config.words import read_words
from bitnet_train.errors import ConfigError

_LATER = "debug"  # the group whose files count more than a recipe, so no recipe can choose one: its values are written


def with_words(content: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the content of a recipe in which the words stand: choices in its defaults, values at their keys."""
    read, made = read_words(words), deepcopy(dict(content))
    chosen = {next(iter(entry)): entry for entry in made.pop("defaults", [])}
    values: dict[str, Any] = {}
    for group, choice in read.choices.items():
        if group == _LATER:
            values |= flatten(group_layer(group, groups()[group][choice]).values)
        else:
            chosen[f"override /{group}"] = {f"override /{group}": choice}
    for name, value in (values | read.values).items():
        _set(made, name, value)
    return {"defaults": list(chosen.values()), **made} if chosen else made


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[last] = value


def recipe_text(content: Mapping[str, Any], words: Sequence[str], comment: str) -> str:
    """Return the file of such a recipe. comment: what its first line says of it."""
    body = yaml.safe_dump(with_words(content, words), sort_keys=False, allow_unicode=True, width=110)
    return f"# @package _global_\n# {comment}\n\n{body}"


def check_same(file: str, recipe: str | None, words: Sequence[str]) -> None:
    """Raise ConfigError where a recipe file does not compose to what a recipe with words does."""
    made, asked = ({**to_dict(compose(*call).config), "recipe": ""} for call in ((file, ()), (recipe, words)))
    differing = [name for name, value in asked.items() if made[name] != value]
    if differing:
        raise ConfigError(
            f"{file} does not compose to what the best trial had; `{'`, `'.join(differing)}` differ. Its own "
            "configuration is the config.yaml of its run directory."
        )
