"""A figure of each layer as a table of shades, blocks down and families across: readable as figures, seen as a picture.

Shades are classes (`h0` to `h9`), evenly spread from the least to the most of the table; the page has their colours.
"""

from __future__ import annotations

from html import escape

from bitnet_train.report.document import Heat

SHADES = 10


def render_heat(heat: Heat) -> str:
    """Return one <figure>."""
    values = [value for _, row in heat.rows for value in row if value is not None]
    least, most = min(values, default=0.0), max(values, default=0.0)
    header = "".join(f'<th scope="col">{escape(column)}</th>' for column in heat.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_cell(heat, value, least, most) for value in row)}</tr>'
        for name, row in heat.rows
    )
    return (
        f'<figure class="heat"><figcaption>{escape(heat.title)}<small>{escape(heat.note)}</small></figcaption>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(heat.title)}"><table><thead><tr>'
        f'<th scope="col">block</th>{header}</tr></thead><tbody>{rows}</tbody></table></div></figure>'
    )


def _cell(heat: Heat, value: float | None, least: float, most: float) -> str:
    if value is None:
        return "<td></td>"
    share = (value - least) / (most - least) if most > least else 0.0
    return f'<td class="h{min(SHADES - 1, int(share * SHADES))}">{escape(heat.render(value))}</td>'
