"""Figures as dots over the value that each was made with, as inline SVG: value to the right, figure upward."""

from __future__ import annotations

from html import escape
from math import log

from bitnet_train.report.document import Dots
from bitnet_train.report.figures import axis_number, number

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 30
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def render_dots(chart: Dots) -> str:
    """Return one <figure> with its title, both axes and a dot for each figure; the best, the lowest, stands out."""
    values, figures = [dot.value for dot in chart.dots], [dot.figure for dot in chart.dots]
    least, most, low, high = min(values), max(values), min(figures), max(figures)

    def x(share: float) -> float:
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    lines = "".join(
        f'<line class="mark" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="note" x="8" y="{y(tick) + 4:.1f}">{axis_number(low + tick * (high - low))}</text>'
        for tick in _TICKS
    )
    marks = "".join(
        f'<text class="note" x="{x(tick):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">'
        f"{_between(least, most, tick, chart.is_log):.3g}</text>"
        for tick, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    dots = "".join(
        f'<circle class="s{int(dot.figure == low)}" cx="{x(_share(dot.value, least, most, chart.is_log)):.1f}" '
        f'cy="{y(_share(dot.figure, low, high)):.1f}" r="5">'
        f"<title>{escape(f'{dot.name}: {dot.value:.4g}, {number(dot.figure, 4)} {chart.unit}')}</title></circle>"
        for dot in chart.dots
    )
    return (
        f"<figure><figcaption>{escape(chart.title)}<small>{escape(chart.unit)}</small></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{lines}{marks}{dots}</svg></figure>"
    )


def _share(value: float, least: float, most: float, is_log: bool = False) -> float:
    if most == least:
        return 0.5
    return log(value / least) / log(most / least) if is_log else (value - least) / (most - least)


def _between(least: float, most: float, share: float, is_log: bool) -> float:
    return least * (most / least) ** share if is_log else least + share * (most - least)
