"""Hydra composition: schema, then `configs/main.yaml`, the chosen group files, the recipe, the command line.

Later layers win. A recipe is a Hydra group of its own, registered from whatever file was named, so a bundled recipe, a
copied one and the saved configuration of a run travel the same way. Every layer is checked against the typed schema by
itself before Hydra merges them: an error can then name the file, and nothing has been loaded yet.

A group chosen on the command line for a *saved run* replaces that whole group; over a *recipe* it replaces the group
file, and what the recipe's own lines set stays (Hydra's rule), which is said in `Composed.notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitnet_train.config.check import check_complete, check_draft, check_layers, flatten, value_of
from bitnet_train.config.draft import Draft, settled
from bitnet_train.config.given_path import decided_by_path
from bitnet_train.config.idle import own_recipe
from bitnet_train.config.interpolation import escape
from bitnet_train.config.layers import Layer, choices, layers
from bitnet_train.config.layout import house
from bitnet_train.config.paths import expand_paths, settle_paths
from bitnet_train.config.schema import CALL_KEYS, Config, as_plain
from bitnet_train.config.target import Target, find_target
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.config.words import Words, read_words
from bitnet_train.errors import ConfigError


@dataclass(frozen=True)
class Composed:
    """A checked configuration, and where each of its values came from."""

    config: Config
    target: Target
    choices: dict[str, str]  # group -> chosen file's name
    origins: dict[str, str]  # dotted key -> file, or `command line`; keys at the schema's default are absent
    notes: list[str]  # what a person should know about how the layers met


def compose(word: str | None = None, overrides: Sequence[str] = ()) -> Composed:
    """Compose the configuration of a recipe, file or directory with `key=value` and `group=choice` overrides.

    Raises `ConfigError` naming the file (or the command line), the key, the value, what is allowed, and the nearest.
    """
    target, words = find_target(word), read_words(overrides)
    replaced = words.choices if target.run_dir else {}
    content = {name: value for name, value in target.content.items() if name not in replaced}
    chosen = choices(content, target.label, words)
    stack = layers(chosen, content, target.label, words)
    check_layers(stack)
    decided = decided_by_path(stack, words.choices, own_recipe(target))
    if decided is not None:
        stack.insert(-1, decided)
        words.values = {**flatten(decided.values), **words.values}
    origins = {name: layer.origin for layer in stack for name in flatten(layer.values)}
    draft = _merge(content, stack, chosen, words)
    expand_paths(draft)
    check_draft(draft, origins)
    settle_paths(draft)
    _place(draft, target, origins)
    notes = [*([target.note] if target.note else []), *_notes(stack, words, origins, draft)]
    return Composed(settled(Config, draft), target, chosen, origins, notes)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as plain dictionaries, as a run saves it: without the words and flags of the call."""
    return {name: value for name, value in as_plain(config).items() if name not in CALL_KEYS}


def to_yaml(config: Config) -> str:
    """Return `to_dict` as YAML; composing a directory that holds it as `config.yaml` gives the same configuration."""
    return yaml.safe_dump(_escaped(to_dict(config)), sort_keys=False, allow_unicode=True, width=10**6)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else _escaped_text(value)


def _escaped_text(value: Any) -> Any:
    return escape(value) if isinstance(value, str) else value


def _merge(content: Mapping[str, Any], stack: Sequence[Layer], chosen: Mapping[str, str], words: Words) -> Any:
    picks = tuple(f"{group}={choice}" for group, choice in chosen.items() if group in words.choices)
    try:
        merged = deepcopy(_by_hydra(house() / "configs", _Content(content, stack), picks))
        for name, value in words.values.items():
            OmegaConf.update(merged, name, value, merge=False, force_add=True)
        check_complete(OmegaConf.missing_keys(merged))
        draft = OmegaConf.to_object(merged)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"The configuration cannot be composed: {' '.join(str(error).split())}") from error
    assert isinstance(draft, Draft)
    return draft


class _Content:
    """The lines of a recipe, told apart by what they and the group files beside them say."""

    def __init__(self, lines: Mapping[str, Any], stack: Sequence[Layer]) -> None:
        self.lines, self._said = dict(lines), repr((lines, [layer.values for layer in stack if layer.group]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)


@lru_cache(maxsize=32)
def _by_hydra(configs: Path, content: _Content, picks: tuple[str, ...]) -> DictConfig:
    """Merge schema, group files and recipe: a quarter of a second, and the same for every call of the same recipe."""
    _store_schema()
    ConfigStore.instance().store(group="recipe", name="chosen", node=content.lines, package="_global_")
    with initialize_config_dir(str(configs), version_base="1.3", job_name="bitnet-train"):
        return hydra_compose("main", overrides=["recipe=chosen", *picks])


@cache
def _store_schema() -> None:
    """Tell Hydra the schema, once: it copies what it is told."""
    ConfigStore.instance().store(name="schema", node=Draft)


def _place(draft: Any, target: Target, origins: dict[str, str]) -> None:
    """Set what the first word decides: the recipe's name, the directory to work on, and that a run is continued."""
    draft.recipe = target.name
    draft.path = str(target.path) if target.path else None
    if target.run_dir:
        draft.run.dir = str(target.run_dir)
        origins["run.dir"] = COMMAND_LINE
    if target.kind == "run" and origins.get("trainer.resume") != COMMAND_LINE:
        draft.trainer.resume = "auto"
        origins["trainer.resume"] = "a run directory is continued"


def _notes(stack: Sequence[Layer], words: Words, origins: Mapping[str, str], draft: Any) -> list[str]:
    """Name what a recipe's own lines keep although the command line chose another file for that group."""
    return [
        f"{origins[name]} sets `{name}`={value_of(draft, name)}, which stays over {layer.origin}. "
        f"Add `{name}={value}` to change it."
        for layer in stack
        if layer.group in words.choices
        for name, value in flatten(layer.values).items()
        if origins[name] not in (layer.origin, COMMAND_LINE) and value_of(draft, name) != value
    ]
