from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.settings import Range, part_of, require_allowed, setting


@dataclass(frozen=True)
class Loop:
    steps: int = setting(3, "steps", at_least=1)
    rate: float | str = setting(0.1, "rate", above=0, word="auto")
    kind: Literal["short", "long"] | None = setting(None, "kind")
    betas: tuple[float, float] = setting((0.5, 0.5), "rates", at_least=0, below=1)
    threads: tuple[int, ...] = setting((), "threads", at_least=1)
    roles: tuple[str, ...] = setting((), "roles", choices=["head", "mlp"])
    free: dict[str, Any] = setting({}, "anything")

    def __post_init__(self) -> None:
        require_allowed(self, "loop")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0}, "`loop.steps=0` is out of range: it must be 1 or more."),
        ({"rate": float("inf")}, "`loop.rate=inf` is out of range: it must be a finite number above 0, or auto."),
        ({"rate": "fast"}, "`loop.rate=fast` is out of range"),
        ({"rate": True}, "`loop.rate=True` is out of range"),
        ({"kind": "longer"}, "`loop.kind=longer` is not a known choice. Did you mean `long`? Allowed: short, long."),
        ({"betas": (0.5,)}, "it must be two numbers, each at least 0 and below 1."),
        ({"betas": (0.5, 1.0)}, "it must be two numbers, each at least 0 and below 1."),
        ({"threads": (2, 0)}, "`loop.threads=(2, 0)` is out of range: it must be a list of numbers, each 1 or more."),
        ({"roles": ("mlp", "hed")}, "`loop.roles=hed` is not a known choice. Did you mean `head`?"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Loop(**values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "values", [{}, {"rate": "auto"}, {"rate": "3e-4"}, {"kind": "short"}, {"threads": (1, 8)}, {"roles": ("mlp",)}]
)
def test_what_is_allowed_is_taken(values: dict[str, Any]) -> None:
    assert vars(Loop(**values)) == {**vars(Loop()), **values}


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "said"),
    [
        (Range(at_least=0.0), (0, 7.5), (-1, float("nan"), float("inf")), "a finite number, 0 or more"),
        (Range(at_least=8), (8,), (7,), "8 or more"),
        (Range(above=0), (1e-9,), (0,), "a finite number above 0"),
        (Range(above=0, at_most=1), (0.5, 1), (0, 1.1), "above 0 and at most 1"),
        (Range(at_least=0, at_most=1), (0, 1), (-0.1, 1.1), "between 0 and 1"),
        (Range(at_least=0, below=0.5), (0, 0.4), (0.5,), "at least 0 and below 0.5"),
    ],
)
def test_a_range_holds_what_it_says(bounds: Range, inside: tuple[Any], outside: tuple[Any], said: str) -> None:
    assert str(bounds) == said
    assert all(map(bounds.holds, inside))
    assert not any(map(bounds.holds, outside))


def test_settings_do_not_change_and_share_nothing() -> None:
    loop = Loop()
    with pytest.raises(FrozenInstanceError):
        loop.steps = 4  # type: ignore[misc]
    assert loop.free is not Loop().free


def test_a_part_takes_the_fields_that_it_knows() -> None:
    @dataclass(frozen=True)
    class Steps:
        steps: int = setting(1, "steps")

    assert part_of(Steps, Loop(steps=9)) == Steps(9)
