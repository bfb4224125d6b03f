"""Figures as people read them; what is not known is a dash."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

UNKNOWN = "–"
Held = TypeVar("Held")


def cell(held: Held | None, render: Callable[[Held], str]) -> str:
    """Render what is held, a dash where there is nothing."""
    return UNKNOWN if held is None else render(held)


def number(value: float | None, digits: int = 2) -> str:
    """Render a number with thousands separators; large ones without decimals."""
    if value is None or not math.isfinite(value):
        return UNKNOWN if value is None else str(value)
    return f"{value:,.{0 if abs(value) >= 1000 else digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Render a share from 0 to 1 in percent."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """Render a difference of shares in signed percentage points."""
    return UNKNOWN if value is None else f"{100 * value:+.1f} pp"


def times(value: float | None) -> str:
    """Render a ratio."""
    return UNKNOWN if value is None else f"{number(value)}x"


def with_error(value: float | None, error: float | None) -> str:
    """Render a share with its standard error."""
    return percent(value) if error is None else f"{percent(value)} ± {100 * error:.1f}"
