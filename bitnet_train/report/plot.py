"""A picture of lines for a page: an SVG, which a script replaces by one to hover and to zoom, and a table of figures.

<figure class="plot">
  <figcaption>title, unit <legend></figcaption>
  <svg>                                        without a script, and on paper
  <script type="application/json">             the same points, for uPlot; data, not code
  <details><table>                             some of the figures, for whoever reads rather than looks
"""

from __future__ import annotations

import json
from html import escape

from bitnet_train.report.curve import render_lines
from bitnet_train.report.document import Curves, Line
from bitnet_train.report.figures import UNKNOWN, axis_number, number

COLOURS = 8
_ROWS = 12  # of the table
_DIGITS = 7  # more than a float32 is exact to


def render_plot(curves: Curves) -> str:
    """Return one <figure>."""
    title = f"{curves.title}, {curves.unit}" if curves.unit else curves.title
    unit = f" <small>{escape(curves.unit)}</small>" if curves.unit else ""
    keys = "".join(f'<span class="key c{line.colour % COLOURS}">{escape(line.name)}</span>' for line in curves.lines)
    return (
        f'<figure class="plot"><figcaption><span>{escape(curves.title)}{unit}</span>'
        f'<span class="legend">{keys}</span></figcaption>'
        f'<div class="canvas">{render_lines(curves, _said(title, curves))}</div>'
        f'<script type="application/json">{_data(title, curves)}</script>'
        f"<details><summary>Figures<span class='unseen'> of {escape(title)}</span></summary>{_table(curves)}</details>"
        "</figure>"
    )


def _said(title: str, curves: Curves) -> str:
    """Say in a sentence what the picture shows."""
    parts = [
        f"{line.name} from {axis_number(line.points[0][1])} at step {number(line.points[0][0], 0)} to "
        f"{axis_number(line.points[-1][1])} at step {number(line.points[-1][0], 0)}"
        for line in curves.lines
    ]
    return f"{title}: {'; '.join(parts)}."


def _data(title: str, curves: Curves) -> str:
    """Return the points as JSON that cannot end the element it stands in."""
    steps = sorted({step for line in curves.lines for step, _ in line.points})
    lines = [
        {"name": line.name, "colour": line.colour % COLOURS, "dots": line.dots, "values": _values(line, steps)}
        for line in curves.lines
    ]
    top = None if curves.top is None else _short(curves.top)
    text = json.dumps({"title": title, "steps": steps, "lines": lines, "top": top}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _values(line: Line, steps: list[float]) -> list[float | None]:
    held = dict(line.points)
    return [_short(held[step]) if step in held else None for step in steps]


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _table(curves: Curves) -> str:
    steps = sorted({step for line in curves.lines for step, _ in line.points})
    stride = max(1, -(-len(steps) // _ROWS))
    shown = steps if stride == 1 else [*steps[:-1:stride], steps[-1]]
    held = [dict(line.points) for line in curves.lines]
    header = "".join(f'<th scope="col">{escape(line.name)}</th>' for line in curves.lines)
    rows = "".join(
        f'<tr><th scope="row">{number(step, 0)}</th>'
        + "".join(f"<td>{f'{values[step]:.5g}' if step in values else UNKNOWN}</td>" for values in held)
        + "</tr>"
        for step in shown
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(curves.title)}"><table><thead><tr>'
        f'<th scope="col">step</th>{header}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
