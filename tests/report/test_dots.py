"""Dots lie where value and figure say, the best stands out, and an axis in logarithms has equal ratios equally far."""

from __future__ import annotations

import re

import pytest

from bitnet_train.report.document import Dot, Dots
from bitnet_train.report.dots import render_dots

FIGURES = ((1e-4, 3.0), (1e-3, 2.0), (1e-2, 2.5))


def drawn(chart: Dots) -> list[tuple[str, float, float]]:
    found = re.findall(r'<circle class="(s\d)" cx="([\d.]+)" cy="([\d.]+)"', render_dots(chart))
    return [(series, float(x), float(y)) for series, x, y in found]


@pytest.mark.parametrize(("is_log", "share"), [(True, 0.5), (False, (1e-3 - 1e-4) / (1e-2 - 1e-4))])
def test_a_dot_lies_where_its_value_and_its_figure_are(is_log: bool, share: float) -> None:
    dots = tuple(Dot(f"trial-{at}", value, figure) for at, (value, figure) in enumerate(FIGURES))
    (_, left, highest), (best, x, lowest), (other, right, y) = drawn(Dots("lr", "nats", dots, is_log))
    assert (x - left) / (right - left) == pytest.approx(share, abs=1e-3), "places are rounded to a tenth of a pixel"
    assert (y - highest) / (lowest - highest) == pytest.approx(0.5, abs=1e-3), "upward is more"
    assert (best, other) == ("s1", "s0")
    assert highest < lowest


def test_one_value_or_one_figure_alone_is_drawn_in_the_middle_and_names_are_escaped() -> None:
    ((_, x, y),) = drawn(Dots("<lr>", "nats", (Dot("<a>", 1.0, 2.0),), is_log=True))
    assert x == pytest.approx((64 + 720 - 16) / 2)
    assert 12 < y < 260 - 30
    assert "&lt;a&gt;: 1, 2.0000 nats" in render_dots(Dots("<lr>", "nats", (Dot("<a>", 1.0, 2.0),)))
