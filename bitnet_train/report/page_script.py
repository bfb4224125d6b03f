"""The script and the style of a page with curves: uPlot, whole and with its licence, and what makes plots with it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_FOLDER = files("bitnet_train") / "assets" / "report"


@cache
def plot_script() -> str:
    """Return the code of the page."""
    return f"/*\n{_read('uplot.LICENSE')}\n*/\n{_read('uplot.js')}\n{_read('plots.js')}"


@cache
def plot_style() -> str:
    """Return the style of uPlot."""
    return _read("uplot.css")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
