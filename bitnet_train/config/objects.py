"""From configuration to third-party objects, those on the allow-list.

A configuration may come from anywhere, and `_target_` names code to call; so only Lightning's own loggers may be built,
at any depth of the arguments. A class must follow the prefix directly: a longer path would reach the modules a logger
imports (`...loggers.csv_logs.os.system`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitnet_train.config.interpolation import resolver_in
from bitnet_train.errors import ConfigError

ALLOWED_PREFIXES = ("lightning.pytorch.loggers.",)


def is_allowed(spec: Any) -> bool:
    """Tell whether a specification has a `_target_`, all of them are on the allow-list, and everything in it is plain.

    What is not plain (an object, a set, a generator) may hold a target of its own, which Hydra would find.
    """
    return isinstance(spec, Mapping) and "_target_" in spec and _is_plain(spec) and all(map(_on_list, _targets(spec)))


def build_object(spec: Mapping[str, Any], name: str) -> Any:
    """Build a third-party object from `_target_` and its arguments; `name` is the configuration key it stands under.

    Raises `ConfigError` for a target off the allow-list, for arguments it does not have and packages that lack.
    """
    if not is_allowed(spec):
        raise ConfigError(f"`{name}` may only build what starts with {' or '.join(ALLOWED_PREFIXES)}, got {spec}.")
    if (asked := resolver_in(spec)) is not None:
        raise ConfigError(f"`{name}` asks for `{asked}`, and resolvers are not called. Give the value itself.")
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
    return [target for value in spec for target in _targets(value)] if isinstance(spec, list | tuple) else []


def _is_plain(spec: Any) -> bool:
    if isinstance(spec, Mapping):
        return all(isinstance(name, str) and _is_plain(value) for name, value in spec.items())
    if isinstance(spec, list | tuple):
        return all(map(_is_plain, spec))
    return spec is None or isinstance(spec, str | int | float | Path)
