"""Facts: what a stage says of itself, a frozen dataclass in memory and a JSON object on disk.

A dataclass is an object with a key for each field, a tuple a list, a path a string; a class with `to_dict` and
`from_dict` of its own goes by those. Two kinds of fields are written otherwise:

    field(default=None, metadata=LEFT_OUT)    has no key where it is None
    field(metadata=BESIDE)                    a dataclass whose keys stand beside the others; None = none of them

Reading is strict about types, for a wrong one would be shown as a figure, and mild about what is not there: a field
with a default takes it, as in files of before there was the field, and keys that no field has are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, Union, get_args, get_origin, get_type_hints
from typing import runtime_checkable as checkable_at_runtime

from bitnet_train.errors import FormatError

LEFT_OUT: Mapping[str, Any] = MappingProxyType({"json": "left out"})
BESIDE: Mapping[str, Any] = MappingProxyType({"json": "beside"})
_SCALARS = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}
_JSON: dict[Any, Any] = {dict: Mapping, tuple: list}  # what a kind is on disk
Value = TypeVar("Value")


@dataclass(frozen=True)
class Frame:
    """Around the facts of every run: the stage, when it ended, and the versions and machine that it ran with."""

    stage: str
    finished: str
    made_by: dict[str, Any]

    @property
    def machine(self) -> str:
        """The machine in a few words: `2 cores, x86_64`."""
        return f"{self.made_by['cores']} cores, {self.made_by['machine']}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Base of what a stage says of itself; `frame` is there once it is written into a run."""

    stage: ClassVar[str] = ""
    frame: Frame | None = field(default=None, metadata=BESIDE)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = _object(self, but="frame")
        if self.frame is None:
            return values
        return {"stage": self.frame.stage, "finished": self.frame.finished, **values, "made_by": self.frame.made_by}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "facts") -> Self:
        """Inverse of `to_dict`. Raises FormatError which names `file` and the field that is missing or wrong."""
        return _read_object(cls, values, _Place(file))


@checkable_at_runtime
class _OwnForm(Protocol):
    def to_dict(self) -> dict[str, Any]: ...

    @classmethod
    def from_dict(cls, data: Any, /) -> Any: ...


@dataclass(frozen=True)
class _Place:
    """Where a value stands: a file, and the dotted key in it."""

    file: str
    key: str = ""

    def of(self, name: str) -> _Place:
        return _Place(self.file, f"{self.key}.{name}" if self.key else name)

    def wrong(self, expected: str, value: object) -> FormatError:
        text = repr(value)
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        return FormatError(f"{self.file}: `{self.key or 'the whole'}` must be {expected}, not {shown}.")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses as objects, tuples as lists, paths as strings."""
    if isinstance(value, _OwnForm):
        return value.to_dict()
    if is_dataclass(value):
        return _object(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _object(value: Any, but: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in fields(value):
        held = getattr(value, each.name)
        if each.name == but or (held is None and each.metadata.get("json") is not None):
            continue
        found |= plain(held) if _is_beside(each) else {each.name: plain(held)}
    return found


def _is_beside(each: Field[Any]) -> bool:
    return each.metadata.get("json") == BESIDE["json"]


def read(kind: type[Value], values: Any, file: str = "facts") -> Value:
    """Return the dataclass `kind` from plain values. Raises FormatError which names `file` and the field."""
    return _read(kind, values, _Place(file))


def _read_object(kind: type[Value], values: Any, place: _Place) -> Value:
    if not isinstance(values, Mapping):
        raise place.wrong("an object", values)
    found: dict[str, Any] = {}
    for each, hint in _fields(kind):
        if _is_beside(each):
            found[each.name] = _read_beside(hint, values, place)
        elif each.name in values:
            found[each.name] = _read(hint, values[each.name], place.of(each.name))
        elif each.default is MISSING and each.default_factory is MISSING:
            raise FormatError(f"{place.file} has no field `{place.of(each.name).key}`. Run its stage again.")
    return kind(**found)


def _read_beside(hint: Any, values: Mapping[str, Any], place: _Place) -> Any:
    kind = next(each for each in get_args(hint) or (hint,) if each is not NoneType)
    is_optional = kind is not hint
    return None if is_optional and not _keys(kind) & values.keys() else _read(kind, values, place)


def _read(hint: Any, value: Any, place: _Place) -> Any:
    origin, of = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _read_either(of, value, place)
    if origin is Literal:
        if value not in of:
            raise place.wrong(f"one of {', '.join(map(repr, of))}", value)
        return value
    if origin is tuple:
        return _read_tuple(of, value, place)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise place.wrong("an object", value)
        return {key: _read(of[1], item, place.of(key)) for key, item in value.items()}
    return _read_class(hint, value, place)


def _read_class(kind: type, value: Any, place: _Place) -> Any:
    if issubclass(kind, Facts) or (is_dataclass(kind) and not issubclass(kind, _OwnForm)):
        return _read_object(kind, value, place)
    if issubclass(kind, _OwnForm):
        return kind.from_dict(value)
    if kind is Path:
        return Path(_read(str, value, place))
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise place.wrong(_SCALARS[kind], value)
    return value


def _read_either(kinds: tuple[Any, ...], value: Any, place: _Place) -> Any:
    if value is None and NoneType in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not NoneType)
    return _read(next((kind for kind in others if _looks_like(kind, value)), last), value, place)


def _looks_like(kind: Any, value: Any) -> bool:
    on_disk = _JSON.get(get_origin(kind))
    return type(value) is kind if on_disk is None else isinstance(value, on_disk)


def _read_tuple(kinds: tuple[Any, ...], value: Any, place: _Place) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise place.wrong("a list", value)
    each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
    if len(each) != len(value):
        raise place.wrong(f"a list of {len(each)}", value)
    return tuple(_read(kind, item, place.of(str(at))) for at, (kind, item) in enumerate(zip(each, value, strict=True)))


@cache
def _fields(kind: type) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((each, hints[each.name]) for each in fields(kind))


@cache
def _keys(kind: type) -> frozenset[str]:
    """Return the keys that a dataclass may stand for, with those beside them."""
    found: set[str] = set()
    for each, hint in _fields(kind):
        inner = next((kind for kind in get_args(hint) or (hint,) if kind is not NoneType), None)
        found |= _keys(inner) if _is_beside(each) and inner is not None else {each.name}
    return frozenset(found)
