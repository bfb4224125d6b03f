"""Cases that hypothesis draws, by number: the bytes it draws from come from the dice, so that each can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from scripts.fuzz.targets import Attempt, Outcome

Value = TypeVar("Value")

_BYTES = 1 << 13
_DRAWS = 50  # a draw that asks for more bytes than there are gives nothing


def drawn(strategy: SearchStrategy[Value], check: Callable[[Value], Outcome]) -> Attempt:
    """Return the attempt that draws a value and checks it."""
    outcomes: list[Outcome] = []

    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(value: Value) -> None:
        outcomes.append(check(value))

    def attempt(dice: random.Random, number: int) -> Outcome:
        outcomes.clear()
        for _ in range(_DRAWS):
            one.hypothesis.fuzz_one_input(dice.randbytes(_BYTES))
            if outcomes:
                return outcomes[-1]
        raise AssertionError(f"no value in {_DRAWS} draws of {_BYTES} bytes: the strategy asks for too much")

    return attempt
