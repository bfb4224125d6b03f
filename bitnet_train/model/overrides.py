"""Mixed schemes: layers whose weights are written in another way than `weight` says, or not at all.

`weight.overrides` is a list of entries, each with whom it is about and how these layers differ:

    pattern, role                  a glob over layer names, one of the roles, or both: then both must fit
    name, planes, group_size       keys of `weight` for these layers; what is not named is as `weight` has it, but one
                                   plane where `name` is another
    keep: true                     these layers stay float

The last entry that fits a layer decides for it, as a whole. So `[{role: mlp, keep: true}, {pattern: down_proj,
name: ternary}]` keeps the mlp but for `down_proj`. Entries are read before a model is loaded; whether they fit any
layer is known, and said, when the model is there (`convert.plan_conversion`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.patterns import ROLES, closest, matches
from bitnet_train.quant.scheme import WeightScheme

_WHO = ("pattern", "role")
_TYPES = {"bool": (bool, "true or false"), "int": (int, "a whole number")}


@dataclass(frozen=True)
class Override:
    """Layers and the scheme of their weights; `scheme` None means that they stay float."""

    label: str
    """The key it was given under, for messages: `weight.overrides[0]`."""
    pattern: str | None
    role: str | None
    scheme: WeightScheme | None

    def fits(self, name: str, role: str) -> bool:
        """Whether the entry is about the layer of this name and role."""
        return (self.pattern is None or matches(name, self.pattern)) and self.role in (None, role)

    def describe(self) -> str:
        """Whom it is about: `weight.overrides[0]` (pattern 'down_proj')."""
        who = [f"{key} '{value}'" for key, value in (("pattern", self.pattern), ("role", self.role)) if value]
        return f"`{self.label}` ({', '.join(who)})"


def read_overrides(entries: Sequence[Mapping[str, Any]], weight: WeightScheme) -> tuple[Override, ...]:
    """Read the entries of `weight.overrides` over the scheme that `weight` describes.

    Raises ConfigError naming the entry: an unknown key or value, nothing that says whom it is about, or nothing that
    differs.
    """
    return tuple(_read(f"weight.overrides[{index}]", entry, weight) for index, entry in enumerate(entries))


def scheme_of(name: str, role: str, overrides: Sequence[Override], weight: WeightScheme) -> WeightScheme | None:
    """The scheme of a layer that is selected: that of the last entry which fits, else `weight`; None stays float."""
    last = last_fitting(name, role, overrides)
    return weight if last is None else last.scheme


def last_fitting(name: str, role: str, overrides: Sequence[Override]) -> Override | None:
    """The entry that decides for a layer, or None."""
    return next((override for override in reversed(overrides) if override.fits(name, role)), None)


def check_overrides(
    overrides: Iterable[Override], roles: Mapping[str, str], selected: set[str], model_name: str
) -> None:
    """Raise ConversionError for an entry that fits no layer, or gives a scheme only to layers that are not selected.

    `roles` maps the name of every layer that can be converted to its role.
    """
    for override in overrides:
        hits = [name for name, role in roles.items() if override.fits(name, role)]
        if not hits:
            raise ConversionError(
                f"{override.describe()} matched no layer in {model_name}. {_near(override, roles)} Fix the entry or "
                "drop it."
            )
        if override.scheme is not None and not selected & set(hits):
            raise ConversionError(
                f"{override.describe()} matched only layers that are not selected, such as {hits[0]} (role "
                f"{roles[hits[0]]}). Select them with `model.roles` or `model.include`, or drop the entry."
            )


def _near(override: Override, roles: Mapping[str, str]) -> str:
    if override.pattern is not None:
        return f"Closest: {closest(override.pattern, roles)}."
    return f"Roles found: {', '.join(sorted(set(roles.values())))}."


def _read(label: str, entry: Mapping[str, Any], weight: WeightScheme) -> Override:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"`{label}={entry}` must be an entry such as {{pattern: down_proj, name: ternary}}.")
    given = {str(key): value for key, value in entry.items()}
    for key, value in given.items():
        _check_entry(label, key, value)
    pattern, role, keep = (given.pop(key, None) for key in (*_WHO, "keep"))
    if not pattern and not role:
        raise ConfigError(f"`{label}={dict(entry)}` does not say whom it is about. Add `pattern` or `role`.")
    if role is not None and role not in ROLES:
        raise ConfigError(f"`{label}.role={role}` is not a known choice. Allowed: {', '.join(ROLES)}.")
    if bool(keep) == bool(given):
        reason = "keeps layers float and says how they become 1-bit" if keep else "changes nothing"
        raise ConfigError(
            f"`{label}={dict(entry)}` {reason}. Give either `keep: true`, or keys of `weight` such as `name: ternary`."
        )
    return Override(label, pattern, role, None if keep else _changed(label, weight, given))


def _check_entry(label: str, key: str, value: Any) -> None:
    kinds = {field.name: str(field.type) for field in fields(WeightScheme)}
    allowed = {**dict.fromkeys(_WHO, "str"), "keep": "bool", **kinds}
    if key not in allowed:
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise ConfigError(f"`{label}` has the unknown key `{key}`.{hint} Allowed: {', '.join(allowed)}.")
    kind, words = _TYPES.get(allowed[key], (str, "text"))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"`{label}.{key}={value}` is not {words}.")


def _changed(label: str, weight: WeightScheme, changes: Mapping[str, Any]) -> WeightScheme:
    if changes.get("name", weight.name) != weight.name:
        changes = {"planes": 1, **changes}  # planes are those of the codes that are left
    try:
        return replace(weight, **changes)
    except ConfigError as error:
        raise ConfigError(str(error).replace("`weight.", f"`{label}.", 1)) from None
