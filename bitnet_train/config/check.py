"""Checks before anything is loaded: keys and types of one layer, then values and their agreement in the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bitnet_train.config.draft import Draft
from bitnet_train.config.interpolation import resolver_in
from bitnet_train.config.layers import Layer
from bitnet_train.config.rules import RULES
from bitnet_train.config.suggest import known_keys, nearest_key, sections
from bitnet_train.errors import ConfigError
from bitnet_train.model.overrides import read_overrides
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.settings import part_of
from bitnet_train.train.data.mix_parts import read_mix

DEFAULT = "default"
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
_KINDS["list[dict[str, Any]]"] = "a list of entries such as {pattern: NAME, KEY: VALUE}"
_KINDS["dict[int, float]"] = "numbers by token id, such as {50: -100}"


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


def check_draft(draft: Any, origins: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a value that is not allowed, or two values that contradict.

    draft: a `Draft`. The settings classes refuse most of it too; here it is said from where a value came.
    """
    for name, field in known_keys().items():
        if (fault := field.metadata["allowed"].fault(value_of(draft, name))) is not None:
            raise ConfigError(f"{_given(name, fault[0], origins)} {fault[1]}")
    for name, broken, reason in RULES:
        if broken(draft):
            raise ConfigError(f"{_given(name, value_of(draft, name), origins)} {reason}")
    read_mix(draft.data.mix, known_keys()["data.kind"].metadata["choices"])
    read_overrides(draft.weight.overrides, part_of(WeightScheme, draft.weight))


def value_of(config: Any, name: str) -> Any:
    """Return the value of one dotted key of a `Config`, or of a draft of one, as a file would hold it."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


@cache
def _typed() -> Any:
    """The schema, for trying values on: building it costs more than all checks of a call."""
    return OmegaConf.structured(Draft)


def _check_key(name: str, value: Any, origin: str) -> None:
    if (asked := resolver_in(value)) is not None:
        raise ConfigError(
            f"`{name}={asked}` ({origin}) asks for something outside the configuration (the environment, say), and "
            f"what it gives would be written into files and names. Give the value itself, or on the command line "
            f'`{name}="$NAME"`. `${{KEY}}` of another key is read.'
        )
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


def _given(name: str, value: Any, origins: Mapping[str, str]) -> str:
    return f"`{name}={value}` ({origins.get(name, DEFAULT)})"
