"""Checks before anything is loaded: keys and types of one layer, then values and their agreement in the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitnet_train.config.layers import Layer
from bitnet_train.config.objects import build
from bitnet_train.config.rules import RANGES, RULES
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import did_you_mean, known_keys, nearest_key, sections
from bitnet_train.errors import ConfigError
from bitnet_train.model.overrides import read_overrides
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.train.data.mix import read_mix

DEFAULT = "default"
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
_KINDS["list[dict[str, Any]]"] = "a list of entries such as {pattern: NAME, KEY: VALUE}"


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as dotted keys; a known key's value is never opened further."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        full = f"{prefix}{name}"
        if full in sections() and isinstance(value, Mapping):
            flat |= flatten(value, f"{full}.")
        else:
            flat[full] = value
    return flat


def check_layers(stack: Iterable[Layer]) -> None:
    """Raise `ConfigError` naming the layer's file for a key the schema lacks, or a value of another type."""
    for layer in stack:
        for name, value in flatten(layer.values).items():
            _check_key(name, value, layer.origin)


def check_complete(missing: Iterable[str]) -> None:
    """Raise `ConfigError` for the first key that must be given and is not."""
    for name in sorted(missing):
        raise ConfigError(f"`{name}` must be given: {known_keys()[name].metadata['doc']}. Add `{name}=...`.")


def check_config(config: Config, origins: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a value that is not allowed, or two values that contradict."""
    for name, field in known_keys().items():
        value = value_of(config, name)
        if field.metadata["choices"]:
            _check_choices(name, value, field.metadata["choices"], origins)
    for names, holds, allowed in RANGES:
        for name in names:
            if (value := value_of(config, name)) is not None and not holds(value):
                raise ConfigError(f"{_given(name, value, origins)} is out of range: it must be {allowed}.")
    for name, broken, reason in RULES:
        if broken(config):
            raise ConfigError(f"{_given(name, value_of(config, name), origins)} {reason}")
    read_mix(config.data.mix, known_keys()["data.kind"].metadata["choices"])
    read_overrides(config.weight.overrides, build(WeightScheme, config.weight))


def value_of(config: Config, name: str) -> Any:
    """Return the value of one dotted key."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@cache
def _typed() -> Any:
    """The schema, for trying values on: building it costs more than all checks of a call."""
    return OmegaConf.structured(Config)


def _check_key(name: str, value: Any, origin: str) -> None:
    field = known_keys().get(name)
    if field is None:
        raise ConfigError(
            f"`{name}` ({origin}): there is no such key.{nearest_key(name)} `bitnet-train show --keys` lists all keys."
        )
    try:
        OmegaConf.update(_typed(), name, value, merge=False)
    except OmegaConfBaseException:
        raise ConfigError(
            f"`{name}={value}` ({origin}) is not {_kind(str(field.type))}. The key means: {field.metadata['doc']}."
        ) from None


def _kind(annotation: str) -> str:
    kind = annotation.removesuffix(" | None")
    return _KINDS.get(kind, _KINDS.get(kind.split("[")[0], kind)) + (" or null" if kind != annotation else "")


def _check_choices(name: str, value: Any, allowed: tuple[str, ...], origins: Mapping[str, str]) -> None:
    for item in value if isinstance(value, list) else [value]:
        if item not in allowed:
            raise ConfigError(
                f"{_given(name, item, origins)} is not a known choice.{did_you_mean(str(item), allowed)} "
                f"Allowed: {', '.join(allowed)}."
            )


def _given(name: str, value: Any, origins: Mapping[str, str]) -> str:
    return f"`{name}={value}` ({origins.get(name, DEFAULT)})"
