"""A setting, written once: the field of a frozen dataclass, with its default, its meaning and what is allowed.

    @dataclass(frozen=True)
    class ScheduleConfig:
        hardness: Literal["hard", "tanh"] = setting("hard", "how the quantiser hardens")
        soft_fraction: float = setting(0.4, "share of the steps with a soft quantiser", at_least=0, at_most=1)

        def __post_init__(self) -> None:
            require_allowed(self, "schedule")

Such a class lives in the room that reads it, in a file that imports no torch; `config/` assembles the sections of them,
and takes keys, types, meanings, choices and ranges from here. Choices are those of a `Literal` or, where a table has
the names, `choices`; of a tuple each item is held to them, and to the range.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from bitnet_train.errors import ConfigError

T = TypeVar("T")
REQUIRED: Any = "???"  # OmegaConf's mark of a value that a file or the command line must give


@dataclass(frozen=True)
class Range:
    """The finite numbers a setting may be; `word` is a word that it may be instead."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    word: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether every value is allowed."""
        return self.at_least is None and self.above is None and self.at_most is None and self.below is None

    def holds(self, value: Any) -> bool:
        """Whether a value is allowed; text that reads as a number is that number, as YAML leaves 3e-4 as text."""
        if value == self.word and self.word is not None:
            return True
        number = _number(value)
        return (
            math.isfinite(number)
            and (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        word = f", or {self.word}" if self.word is not None else ""
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least:g} and {self.at_most:g}{word}"
        lower = f"at least {self.at_least:g}" if self.at_least is not None else f"above {self.above:g}"
        if self.below is not None:
            return f"{lower} and below {self.below:g}{word}"
        if self.at_most is not None:
            return f"{lower} and at most {self.at_most:g}{word}"
        if self.at_least is not None:
            return f"{'' if self.at_least else 'a finite number, '}{self.at_least:g} or more{word}"
        return f"a finite number {lower}{word}"


def setting(
    default: T,
    doc: str,
    *,
    choices: Iterable[str] = (),
    path: bool = False,
    model: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    word: str | None = None,
) -> T:
    """Return a dataclass field: its default, its one-line meaning with the unit, and which values are allowed.

    `path` marks a key that names files or folders, or may, `model` one of them that may be `tiny` or a hub id:
    `config.paths` expands `~` in it, and makes it absolute. `word` may stand in place of a number in range.
    """
    says = {"doc": doc, "choices": tuple(choices), "path": path, "model": model}
    says["range"] = Range(at_least, above, at_most, below, word)
    if isinstance(default, dict):
        return cast(T, field(default_factory=lambda: dict(default), metadata=says))
    return field(default=default, metadata=says)


@dataclass(frozen=True)
class Allowed:
    """What the values of one setting may be; `length` where it is a list of so many."""

    choices: tuple[str, ...]
    range: Range
    is_list: bool = False
    length: int | None = None

    def fault(self, value: Any) -> tuple[Any, str] | None:
        """Return what is wrong in a value, the value or an item of it, and the rest of a sentence that says why."""
        if value is None:
            return None
        items = list(value) if self.is_list else [value]
        for item in items if self.choices else ():
            if item not in self.choices:
                near = did_you_mean(str(item), self.choices)
                return item, f"is not a known choice.{near} Allowed: {', '.join(self.choices)}."
        wrong_length = self.length is not None and len(items) != self.length
        if not self.range.is_open and (wrong_length or not all(map(self.range.holds, items))):
            return value, f"is out of range: it must be {self._described()}."
        return None

    def _described(self) -> str:
        if not self.is_list:
            return str(self.range)
        return f"{'a list of' if self.length is None else _COUNTS[self.length]} numbers, each {self.range}"


_COUNTS = {2: "two", 3: "three"}


@cache
def allowed(kind: type[Any]) -> Mapping[str, Allowed]:
    """Return what each setting of a settings class may be; fields made otherwise (nested classes) are not in it."""
    hints = get_type_hints(kind)
    return {field.name: _allowed(hints[field.name], field.metadata) for field in fields(kind) if field.metadata}


def require_allowed(section: Any, name: str) -> None:
    """Raise ConfigError for the first value of a settings class that is no choice, or out of range.

    name: the section as it is called in the configuration, such as `data.self_corpus`.
    """
    for key, values in allowed(type(section)).items():
        if (fault := values.fault(getattr(section, key))) is not None:
            raise ConfigError(f"`{name}.{key}={fault[0]}` {fault[1]}")


def part_of(kind: type[T], section: Any) -> T:
    """Return a smaller settings class, made of the fields of `section` that are called the same."""
    return kind(**{field.name: getattr(section, field.name) for field in fields(cast(Any, kind))})


def did_you_mean(given: str, words: Iterable[str]) -> str:
    """Return ` Did you mean ...?` for the nearest of these words, or nothing where none is near."""
    nearest = difflib.get_close_matches(given, list(words), n=1, cutoff=0.6)
    return f" Did you mean `{nearest[0]}`?" if nearest else ""


def without_null(hint: Any) -> Any:
    """Return a type without `| None`."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007


def _allowed(hint: Any, says: Mapping[str, Any]) -> Allowed:
    kind = without_null(hint)
    is_list = get_origin(kind) is tuple
    items = get_args(kind) if is_list else (kind,)
    names = get_args(items[0]) if get_origin(items[0]) is Literal else ()
    length = len(items) if is_list and items[-1] is not Ellipsis else None
    return Allowed(says["choices"] or names, says["range"], is_list, length)


def _number(value: Any) -> float:
    """A value as a number; NaN, which is in no range, for what is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
