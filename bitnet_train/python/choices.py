"""The name of a choice in `configs/`, as the settings that it stands for: `binary_row` -> `WeightConfig(...)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from bitnet_train.config.layers import group_layer
from bitnet_train.config.layout import groups
from bitnet_train.errors import ConfigError
from bitnet_train.model.settings import Selection, WeightConfig
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.settings import did_you_mean

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class WeightChoice:
    """How weights are written, and which layers: a choice may set that too."""

    weight: WeightConfig
    selection: Selection


def settings_of(group: str, given: str | Settings, kind: type[Settings]) -> Settings:
    """Return the settings of the section `group`: those of the named choice, or `given` itself.

    Raises ConfigError for a name that `configs/<group>/` does not have, with the nearest that it has, and for anything
    that is neither a name nor of `kind`.
    """
    if isinstance(given, kind):
        return given
    return _section(_values(group, given, kind).get(group, {}), kind)


def weight_choice(given: str | WeightScheme) -> WeightChoice:
    """Return the weights and the selection of a named choice; of a scheme, itself and the usual selection."""
    if isinstance(given, WeightConfig):
        return WeightChoice(given, Selection())
    if isinstance(given, WeightScheme):
        return WeightChoice(WeightConfig(**given.to_dict()), Selection())
    values = _values("weight", given, WeightScheme)
    return WeightChoice(_section(values["weight"], WeightConfig), _section(values.get("model", {}), Selection))


def _values(group: str, given: object, kind: type[Any]) -> dict[str, Any]:
    """Return what a choice sets, by section."""
    names = groups()[group]
    listed = f"Choices of `{group}`: {', '.join(names)}. A `bitnet_train.{kind.__name__}` is taken too."
    if not isinstance(given, str):
        raise ConfigError(f"`{group}={given!r}` is a {type(given).__name__}, not the name of a choice. {listed}")
    if given not in names:
        raise ConfigError(f"`{group}={given!r}`: there is no such choice.{did_you_mean(given, names)} {listed}")
    return group_layer(group, names[given]).values


def _section(values: dict[str, Any], kind: type[Settings]) -> Settings:
    """Return a settings class with the values of a file, whose lists are tuples there."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
