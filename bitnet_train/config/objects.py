"""From configuration to objects: a lower floor's dataclass, or a third-party object on the allow-list.

A configuration may come from anywhere, and `_target_` names code to call; so only Lightning's own loggers may be built,
at any depth of the arguments. A class must follow the prefix directly: a longer path would reach the modules a logger
imports (`...loggers.csv_logs.os.system`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from bitnet_train.errors import ConfigError

T = TypeVar("T")

ALLOWED_PREFIXES = ("lightning.pytorch.loggers.",)


def build(kind: type[T], section: Any, **further: Any) -> T:
    """Build a lower floor's dataclass from the equally named keys of a configuration section, and `further` fields.

    Lists become tuples, nested sections the nested dataclass. A field that the section lacks keeps the dataclass's own
    default, so `build(WeightScheme, config.weight)` leaves `weight.estimator` to its own reader.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(cast(Any, kind)) if hasattr(section, field.name)]
    return kind(**{name: _converted(getattr(section, name), hints[name]) for name in names} | further)


def _converted(value: Any, hint: Any) -> Any:
    if is_dataclass(value):
        return build(hint, value)
    return tuple(value) if isinstance(value, list) else value


def is_allowed(spec: Any) -> bool:
    """Tell whether every `_target_` in a nested specification is on the allow-list, and the outermost has one."""
    return isinstance(spec, Mapping) and "_target_" in spec and all(map(_on_list, _targets(spec)))


def build_object(spec: Mapping[str, Any], name: str) -> Any:
    """Build a third-party object from `_target_` and its arguments; `name` is the configuration key it stands under.

    Raises `ConfigError` for a target off the allow-list, for arguments it does not have and packages that lack.
    """
    if not is_allowed(spec):
        raise ConfigError(f"`{name}` may only build what starts with {' or '.join(ALLOWED_PREFIXES)}, got {spec}.")
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    try:
        return instantiate(dict(spec))
    except HydraException as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, TypeError | ImportError):
            raise error.__cause__ from None  # of the object itself: a server that does not answer, a full disk
        raise ConfigError(f"`{name}` could not be built: {' '.join(str(error).split())}") from error


def _on_list(target: Any) -> bool:
    prefix, _, name = str(target).rpartition(".")
    return f"{prefix}." in ALLOWED_PREFIXES and name.isidentifier() and name[0].isupper()


def _targets(spec: Any) -> list[Any]:
    if isinstance(spec, Mapping):
        own = [spec["_target_"]] if "_target_" in spec else []
        return own + [target for value in spec.values() for target in _targets(value)]
    return [target for value in spec for target in _targets(value)] if isinstance(spec, list) else []
