"""Lines over the steps of training as SVG: one file for a model card, and what a page shows where no script runs.

The file of a card stands by itself: cross-entropy and KL in training and on held-out text, its colours inside, and
following the reader's light or dark. In a page colours are those of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bitnet_train.report.document import Curves, Line
from bitnet_train.report.figures import axis_number, number

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 44, 12, 40, 30, 56
_PAGE_HEIGHT, _PAGE_LEFT, _PAGE_TOP = 260, 64, 12
_MOST_POINTS = 400  # of a line: more than one a pixel says nothing
_MOST_VALUE = 1e300  # beyond it sums are infinite
_SHARE_SHOWN = 0.97  # of the points of training: the first steps may lie far above all others
_PANELS = (("cross-entropy", "ce", "val_ce"), ("KL to the original", "kl", "val_kl"))  # nats a token
_STYLE = (
    "svg{--ink:#1c2330;--soft:#5d6778;--line:#e3e7ee;--s0:#9aa7ba;--s1:#c2571a}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e7eaf0;--soft:#9aa4b5;--line:#2c3442;--s0:#65748c;--s1:#f0894a}}"
    "text{font:12px system-ui,sans-serif;fill:var(--soft)}.title{fill:var(--ink);font-weight:600}"
    "path{fill:none;stroke-width:1.5}.s0{stroke:var(--s0)}.s1{stroke:var(--s1)}circle.s1{fill:var(--s1)}"
    "line{stroke:var(--line)}"
)
_LINES = {"s0": "training", "s1": "held out"}
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class _Scale:
    """Where steps and values lie: `left` and `right`, `low` and `high` in pixels of a picture."""

    left: float
    right: float
    low: float
    high: float
    last_step: float
    bottom: float
    top: float

    def place(self, point: tuple[float, float]) -> str:
        """Return x and y; what lies outside lies on the edge."""
        share = (min(max(point[1], self.bottom), self.top) - self.bottom) / (self.top - self.bottom)
        y = self.low - share * (self.low - self.high)
        return f"{self.left + point[0] / self.last_step * (self.right - self.left):.1f} {y:.1f}"


@dataclass(frozen=True)
class _Panel:
    title: str
    trained: Points
    held_out: Points

    @property
    def lines(self) -> tuple[Line, ...]:
        return (
            Line("training", tuple(self.trained), 0),
            Line("held out", tuple(self.held_out), 1, dots=True),
        )

    @property
    def last_step(self) -> float:
        return max(step for step, _ in (*self.trained, *self.held_out))

    @property
    def top(self) -> float:
        """The highest value shown: of training most points, of held-out text all."""
        return max([most_of(self.trained), *(value for _, value in self.held_out)]) or 1.0


def render_curve(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the SVG of what a run logged, a mapping a step; None where there are no two points of anything."""
    panels = list(_panels(metrics))
    if not panels:
        return None
    width = (_WIDTH - _LEFT - _RIGHT - _GAP * (len(panels) - 1)) / len(panels)
    drawn = "".join(_drawn(panel, _LEFT + at * (width + _GAP), width) for at, panel in enumerate(panels))
    legend = "".join(f'<tspan fill="var(--{kind})">{name} </tspan>' for kind, name in _LINES.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Training curve"><style>{_STYLE}</style>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 10}">{legend}</text>{drawn}</svg>\n'
    )


def render_lines(curves: Curves, said: str) -> str:
    """Return the SVG of one picture of a page, which says `said` to whoever does not see it."""
    values = [value for line in curves.lines for _, value in line.points]
    top = min(max(values), curves.top if curves.top is not None else math.inf)
    bottom = min(values)
    bottom = 0.0 if 0 <= bottom < top / 2 else bottom
    room = (top - bottom or abs(top) or 1.0) * 0.05
    scale = _Scale(
        _PAGE_LEFT,
        _WIDTH - _RIGHT,
        _PAGE_HEIGHT - _BOTTOM,
        _PAGE_TOP,
        max(step for line in curves.lines for step, _ in line.points) or 1.0,
        bottom if bottom == 0 else bottom - room,
        top + room,
    )
    drawn = "".join(_line(line, "c", scale) + _dots(line, "c", scale) for line in curves.lines)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_PAGE_HEIGHT}" role="img" aria-label="{escape(said)}">'
        f"{_ticks(scale, axis_number)}{drawn}"
        f'<text class="note" x="{scale.right}" y="{_PAGE_HEIGHT - 8}" text-anchor="end">'
        f"step {number(scale.last_step, 0)}</text></svg>"
    )


def most_of(points: Points) -> float:
    """Return the value that nearly all points lie below; 0 of none."""
    values = sorted(value for _, value in points)
    return values[min(len(values) - 1, int(len(values) * _SHARE_SHOWN))] if values else 0.0


def points_of(metrics: Sequence[Mapping[str, Any]], key: str, most: int = _MOST_POINTS) -> Points:
    """Return steps and values, evenly thinned to `most`; of a step that was logged twice, as on a resume, the later."""
    logged = [row for row in metrics if _is_number(row.get("step")) and _is_number(row.get(key))]
    found = {float(row["step"]): float(row[key]) for row in logged}
    points = sorted(found.items())
    stride = max(1, math.ceil(len(points) / most))
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _panels(metrics: Sequence[Mapping[str, Any]]) -> Iterator[_Panel]:
    for title, trained, held_out in _PANELS:
        panel = _Panel(title, points_of(metrics, trained), points_of(metrics, held_out))
        if max(len(panel.trained), len(panel.held_out)) > 1 and panel.last_step > 0:
            yield panel


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_VALUE


def _drawn(panel: _Panel, left: float, width: float) -> str:
    scale = _Scale(left, left + width, _HEIGHT - _BOTTOM, _TOP, panel.last_step, 0.0, panel.top * 1.05)
    trained, held_out = panel.lines
    return (
        f'<text class="title" x="{left:.1f}" y="16">{escape(panel.title)}, nats a token</text>'
        f"{_ticks(scale, number)}{_line(trained, 's', scale)}{_line(held_out, 's', scale)}{_dots(held_out, 's', scale)}"
        f'<text x="{left + width:.1f}" y="{_HEIGHT - 10}" text-anchor="end">step {number(panel.last_step, 0)}</text>'
    )


def _line(line: Line, palette: str, scale: _Scale) -> str:
    if len(line.points) < 2:
        return ""
    return f'<path class="{palette}{line.colour}" d="M{" L".join(map(scale.place, line.points))}"/>'


def _dots(line: Line, palette: str, scale: _Scale) -> str:
    if not line.dots and len(line.points) > 1:
        return ""
    places = (scale.place(point).split() for point in line.points)
    return "".join(f'<circle class="{palette}{line.colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)


def _ticks(scale: _Scale, render: Any) -> str:
    drawn = ""
    for share in _TICKS:
        value = scale.bottom + (scale.top - scale.bottom) * share
        y = float(scale.place((0.0, value)).split()[1])
        drawn += (
            f'<line x1="{scale.left:.1f}" x2="{scale.right:.1f}" y1="{y}" y2="{y}"/>'
            f'<text x="{scale.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{render(value)}</text>'
        )
    return drawn
