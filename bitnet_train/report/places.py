"""Models as dots over size and quality, as inline SVG: megabytes to the right, ratio upward in logarithms."""

from __future__ import annotations

from html import escape
from math import log

from bitnet_train.report.document import Place, Places
from bitnet_train.report.figures import number

_WIDTH, _HEIGHT = 720, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 90, 16, 34
_RATIOS = (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000)


def render_places(chart: Places) -> str:
    """Return one <figure> with its title, legend, axes and a dot for each model."""
    widest = max((place.megabytes for place in chart.places), default=0.0) * 1.05 or 1.0
    highest = max((place.ratio for place in chart.places), default=1.0)
    top = log(max(highest, 1.2)) * 1.05

    def x(megabytes: float) -> float:
        return _LEFT + megabytes / widest * (_WIDTH - _LEFT - _RIGHT)

    def y(ratio: float) -> float:
        return _HEIGHT - _BOTTOM - log(max(ratio, 1.0)) / top * (_HEIGHT - _TOP - _BOTTOM)

    lines = "".join(
        f'<line class="mark" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(ratio):.1f}" y2="{y(ratio):.1f}"/>'
        f'<text class="note" x="8" y="{y(ratio) + 4:.1f}">{ratio:g}x</text>'
        for ratio in _RATIOS
        if log(ratio) <= top
    )
    step = _step(widest)
    marks = "".join(
        f'<text class="note" x="{x(step * n):.1f}" y="{_HEIGHT - 10}">{step * n:g} MB</text>'
        for n in range(int(widest / step) + 1)
    )
    dots = "".join(_dot(place, x(place.megabytes), y(place.ratio)) for place in chart.places)
    legend = "".join(f'<span class="key s{number}">{escape(name)}</span>' for number, name in enumerate(chart.series))
    return (
        f'<figure><figcaption>{escape(chart.title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{lines}{marks}{dots}</svg></figure>"
    )


def _dot(place: Place, x: float, y: float) -> str:
    said = f"{place.name}: {number(place.megabytes, 1)} MB, {number(place.ratio)}x"
    beside = f'x="{x + 8:.1f}"' if x < _WIDTH * 0.75 else f'x="{x - 8:.1f}" text-anchor="end"'  # within the picture
    return (
        f'<circle class="s{place.series}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{escape(said)}</title></circle>'
        f'<text class="note" {beside} y="{y - 6:.1f}">{escape(place.name)}</text>'
    )


def _step(widest: float) -> float:
    """Return 1, 2 or 5 times a power of ten: what about five labels are apart."""
    power = 1.0
    while power * 50 < widest:
        power *= 10
    while power * 5 > widest:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 6 > widest)
