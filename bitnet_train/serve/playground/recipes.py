"""A choice of layers as a recipe: a YAML file that `bitnet-train run` takes, made of an existing recipe.

Everything is selected that the choice is about, kept float, and what was chosen then said by `weight.overrides`: a
whole family of layers in one entry where all of it became the same, else a layer an entry. The last entry that fits
decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bitnet_train.errors import BitnetTrainError
from bitnet_train.model.patterns import star_numbers
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.serve.playground.house import House
from bitnet_train.serve.playground.refusal import Refused, not_found
from bitnet_train.serve.playground.schemes import FLOAT, GROUP_SIZE, SCHEMES, scheme_for
from bitnet_train.whole import write_whole

DEFAULT_BASE = "quickstart"
_COMMON = WeightScheme("binary", "group", GROUP_SIZE)
_FIELDS = ("name", "planes", "granularity", "group_size")


class Recipes:
    """Those of the playground, a file each, and those that come with the package."""

    def __init__(self, folder: Path, house: House) -> None:
        self._folder, self._house = folder, house
        folder.mkdir(parents=True, exist_ok=True)

    def listed(self) -> list[dict[str, Any]]:
        """Return names and summaries, the playground's own first."""
        own = [
            {"name": path.stem, "summary": _summary(path), "own": True} for path in sorted(self._folder.glob("*.yaml"))
        ]
        names = {recipe["name"] for recipe in own}
        return own + [
            {"name": name, "summary": summary, "own": False}
            for name, summary in self._house.recipes().items()
            if name not in names
        ]

    def save(
        self,
        name: str,
        source: str,
        called: str,
        layers: Sequence[Mapping[str, Any]],
        choice: Mapping[str, str],
        base: str | None,
    ) -> str:
        """Write a recipe and return its YAML. Raises Refused for a choice that is none, or a base that is not there."""
        base = base or DEFAULT_BASE
        if base not in self._house.recipes():
            raise not_found("recipe", base)
        if name in self._house.recipes():
            raise Refused(409, f"`{name}` is a recipe of the package. Give another name.", "name", "taken")
        check_choice(layers, choice)
        content = recipe_content(self._house.recipe_content(base), source, layers, choice)
        text = f"{_head(choice, called, base)}{yaml.safe_dump(content, sort_keys=False, width=110)}"
        self._keep(name, text, base)
        return text

    def _keep(self, name: str, text: str, base: str) -> None:
        """Write a recipe that composes; ConfigError names what the one that it was made of needs besides."""
        draft = self._folder / f".{name}.yaml"
        write_whole(draft, text)
        try:
            self._house.check(str(draft), ())
        except BitnetTrainError as error:
            raise Refused(400, f"A recipe like {base} does not compose: {error}", "base", "incomplete_recipe") from None
        finally:
            draft.unlink(missing_ok=True)
        write_whole(self._folder / f"{name}.yaml", text)

    def word(self, name: str) -> str:
        """Return what `bitnet-train run` calls a recipe. Raises Refused."""
        if any(recipe["name"] == name and recipe["own"] for recipe in self.listed()):
            return str(self._folder / f"{name}.yaml")
        if name not in self._house.recipes():
            raise not_found("recipe", name)
        return name


def check_choice(layers: Sequence[Mapping[str, Any]], choice: Mapping[str, str]) -> None:
    """Raise Refused, which names the layer, where a choice names what is not there or cannot be."""
    swappable = {layer["name"]: layer["swappable"] for layer in layers}
    for name, word in choice.items():
        if name not in swappable:
            raise Refused(400, f"`choice`: this model has no layer `{name[:200]}`.", "choice", "unknown_layer")
        if word not in SCHEMES:
            allowed = ", ".join(SCHEMES)
            raise Refused(
                400, f"`choice.{name}={word[:40]}` is no scheme. Allowed: {allowed}.", "choice", "unknown_scheme"
            )
        if word != FLOAT and not swappable[name]:
            raise Refused(400, f"`choice.{name}`: this layer stays float.", "choice", "not_swappable")


def recipe_content(
    base: Mapping[str, Any], source: str, layers: Sequence[Mapping[str, Any]], choice: Mapping[str, str]
) -> dict[str, Any]:
    """Return a recipe that converts exactly what was chosen. Raises Refused where that is nothing."""
    chosen = {layer["name"]: layer for layer in layers if choice.get(layer["name"], FLOAT) != FLOAT}
    if not chosen:
        raise Refused(400, "Every layer stays float, so there is nothing to train. Choose a layer.", "choice")
    roles = sorted({str(layer["part"]) for layer in chosen.values()})
    common = {name: getattr(_COMMON, name) for name in _FIELDS}
    entries = [{"pattern": "*", "keep": True}, *_entries(layers, {name: choice[name] for name in chosen})]
    weight = {**base.get("weight", {}), **common, "budget_mb": None, "overrides": entries}
    model = {**base.get("model", {}), "source": source, "roles": roles, "include": [], "exclude": []}
    return {**base, "model": model, "weight": weight}


def _entries(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    families: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        families.setdefault(star_numbers(layer["name"]), []).append(layer)
    entries = []
    for pattern, family in families.items():
        said = [_said(layer, chosen.get(layer["name"], FLOAT)) for layer in family]
        if said[0] is not None and all(each == said[0] for each in said):
            entries.append({"pattern": pattern, **said[0]})
        else:
            entries += [
                {"pattern": layer["name"], **each} for layer, each in zip(family, said, strict=True) if each is not None
            ]
    return entries


def _said(layer: Mapping[str, Any], word: str) -> dict[str, Any] | None:
    """What an entry says of a layer beside its name; None for one that stays float."""
    scheme = scheme_for(word, int(layer["shape"][1]))
    if scheme is None:
        return None
    differing = {name: getattr(scheme, name) for name in _FIELDS if getattr(scheme, name) != getattr(_COMMON, name)}
    return {"name": scheme.name, **differing}


def _head(choice: Mapping[str, str], called: str, base: str) -> str:
    counts = Counter(SCHEMES[word].label for word in choice.values() if word != FLOAT)
    words = ", ".join(f"{count} x {label}" for label, count in counts.items())
    return f"# @package _global_\n# Layers of {called}, chosen on the playground: {words}. Like {base} otherwise.\n\n"


def _summary(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        comments = [line[2:].strip() for line in file if line.startswith("# ") and "@package" not in line]
    return comments[0] if comments else ""
