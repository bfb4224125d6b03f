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


def axis_number(value: float) -> str:
    """Render a number in few letters: three digits, small and large ones with a power of ten."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


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


def size(num_bytes: float | None) -> str:
    """Render bytes as megabytes."""
    return UNKNOWN if num_bytes is None else f"{number(num_bytes / 1e6, 2 if num_bytes < 1e7 else 1)} MB"


def duration(seconds: float | None) -> str:
    """Render a duration: `0.4 s`, `40 s`, `8 min`, `1 h 50 min`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if minutes < 90 else f"{hours} h {rest} min" if rest else f"{hours} h"
