"""The schema as OmegaConf carries it, made from the settings classes of the rooms, and the way back.

OmegaConf 2.3 takes frozen dataclasses (as read-only nodes, into which no value can be set) and tuples (as lists), but
no `Literal`:

    @dataclass(frozen=True)
    class Section:
        name: Literal["a", "b"] = "a"

    OmegaConf.structured(Section)    # ValidationError: Unexpected type annotation: Literal[a, b]

and of `float | str` it refuses the 1 of `optimizer.lr=1`, which is neither. So `Draft` is `Config` once more, made by
`draft_class` and not by hand: mutable, a `Literal` as text whose choices stand in the metadata, a tuple as a list,
other unions as anything. A draft is composed and checked; `settled` then makes the `Config` of it.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bitnet_train.config.schema import Config
from bitnet_train.settings import allowed, without_null

T = TypeVar("T")


@cache
def draft_class(kind: type[Any]) -> type[Any]:
    """Return the class as OmegaConf takes it: the same fields in the same order; types are written as text.

    The metadata of a field is what its `setting` says, and `allowed` (`bitnet_train.settings.Allowed`).
    """
    made: list[Any] = []
    hints, may = get_type_hints(kind), allowed(kind)
    for own in fields(kind):
        hint = hints[own.name]
        if is_dataclass(hint):
            section = draft_class(hint)  # type: ignore[arg-type]
            made.append((own.name, section, field(default_factory=section)))
            continue
        says = {**own.metadata, "allowed": may[own.name], "choices": may[own.name].choices}
        made.append((own.name, type_name(hint), field(**_default(own), metadata=says)))
    return make_dataclass(kind.__name__, made, namespace={"__module__": __name__, "__doc__": kind.__doc__})


def type_name(hint: Any) -> str:
    """Return a type as OmegaConf takes it, and as `show --keys` names it: `str`, `int | None`, `list[str]`."""
    kind = without_null(hint)
    null = "" if kind is hint else " | None"
    if get_origin(kind) is Literal:
        return f"str{null}"
    if get_origin(kind) is tuple:
        return f"list[{type_name(get_args(kind)[0])}]{null}"
    if get_origin(kind) is Union:
        return "Any"
    return f"{getattr(kind, '__name__', 'Any') if get_origin(kind) is None else _generic(kind)}{null}"


def settled(kind: type[T], draft: Any) -> T:
    """Return the settings class made of a draft of it; ConfigError where a room refuses its values."""
    hints = get_type_hints(kind)
    values = {name: _settled(hints[name], getattr(draft, name)) for name in hints if hasattr(draft, name)}
    return kind(**values)


def _settled(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return settled(hint, value)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value


def _generic(kind: Any) -> str:
    return f"{get_origin(kind).__name__}[{', '.join(type_name(item) for item in get_args(kind))}]"


def _default(own: Any) -> dict[str, Any]:
    if own.default is MISSING:
        return {"default_factory": own.default_factory}
    return (
        {"default_factory": lambda: list(own.default)} if isinstance(own.default, tuple) else {"default": own.default}
    )


Draft = draft_class(Config)
