"""Counts as small pictures beside each other, each to a scale of its own."""

from __future__ import annotations

from html import escape

from bitnet_train.report.document import Histograms

_WIDTH, _HEIGHT, _FOOT = 195, 70, 14


def render_histograms(block: Histograms) -> str:
    """Return one <figure> with a picture for each name."""
    pictures = "".join(_picture(name, counts, block.mark) for name, counts in block.counts)
    return (
        f'<figure class="histograms"><figcaption>{escape(block.title)}<small>{escape(block.note)}</small></figcaption>'
        f'<div class="small">{pictures}</div></figure>'
    )


def _picture(name: str, counts: tuple[int, ...], mark: int | None) -> str:
    most, width = max(counts, default=0) or 1, _WIDTH / max(1, len(counts))
    bars = "".join(
        f'<rect class="c1" x="{at * width:.1f}" y="{_HEIGHT - count / most * _HEIGHT:.1f}" width="{width * 0.85:.1f}" '
        f'height="{count / most * _HEIGHT:.1f}"/>'
        for at, count in enumerate(counts)
        if count
    )
    middle = "" if mark is None else f"{(mark + 0.5) * width:.1f}"
    line = "" if mark is None else f'<line class="mark" x1="{middle}" x2="{middle}" y1="0" y2="{_HEIGHT}"/>'
    said = f"{name}: most at {counts.index(most)}" if most in counts else f"{name}: nothing counted"
    return (
        f'<div><span>{escape(name)}</span><svg viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" role="img" '
        f'aria-label="{escape(said)}">{line}{bars}<text class="note" x="0" y="{_HEIGHT + 11}">0</text>'
        f'<text class="note" x="{_WIDTH}" y="{_HEIGHT + 11}" text-anchor="end">{len(counts) - 1}</text></svg></div>'
    )
