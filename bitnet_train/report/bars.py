"""Horizontal bars as inline SVG; colours come from the page's CSS classes, so they follow light and dark."""

from __future__ import annotations

from html import escape

from bitnet_train.report.document import Bar, Bars
from bitnet_train.report.figures import percent

_WIDTH, _LABELS, _RIGHT = 720, 120, 60
_BAR, _GAP, _GROUP_GAP, _TOP = 16, 3, 22, 26


def render_bars(bars: Bars) -> str:
    """Return one <figure> with its title, legend, and bars drawn to a common scale from 0."""
    most = max((share for bar in bars.groups for share in bar.shares if share is not None), default=0.0)
    scale = (_WIDTH - _LABELS - _RIGHT) / max(most, bars.mark[1] if bars.mark else 0.0, 0.05)
    height, parts = _TOP, []
    for bar in bars.groups:
        drawn, height = _group(bar, height, scale)
        parts += drawn
    mark = _mark(bars.mark, scale, height) if bars.mark else ""
    shown = [number for number in range(len(bars.series)) if any(bar.shares[number] is not None for bar in bars.groups)]
    legend = "".join(f'<span class="key s{number}">{escape(bars.series[number])}</span>' for number in shown)
    return (
        f'<figure><figcaption>{escape(bars.title)}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(bars.title)}">'
        f"{''.join(parts)}{mark}</svg></figure>"
    )


def _group(bar: Bar, top: int, scale: float) -> tuple[list[str], int]:
    """Return the shapes of one group and where the next begins."""
    parts = [f'<text class="note" x="{_LABELS}" y="{top - 5}">{escape(bar.note)}</text>'] if bar.note else []
    present = [(number, share) for number, share in enumerate(bar.shares) if share is not None]
    middle = top + len(present) * (_BAR + _GAP) / 2
    parts.append(f'<text class="name" x="{_LABELS - 10}" y="{middle + 3:.0f}">{escape(bar.name)}</text>')
    for number, share in present:
        width = max(1.0, share * scale)
        text = percent(share)
        parts.append(
            f'<rect class="s{number}" x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3">'
            f"<title>{text}</title></rect>"
            f'<text class="value" x="{_LABELS + width + 6:.1f}" y="{top + 12.5}">{text}</text>'
        )
        top += _BAR + _GAP
    return parts, top + _GROUP_GAP


def _mark(mark: tuple[str, float], scale: float, height: int) -> str:
    x = _LABELS + mark[1] * scale
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{height - _GROUP_GAP + 4}"/>'
        f'<text class="note" x="{x + 4:.1f}" y="12">{escape(mark[0])} {percent(mark[1])}</text>'
    )
