"""What a report is made of. Strings are plain text; each writer escapes them for its own format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row, the others are figures, or `is_text`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False


@dataclass(frozen=True)
class Items:
    """Short sentences below each other."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """One group of bars: name, note, and for each series a share from 0 to 1 or None to leave it out."""

    name: str
    note: str
    shares: tuple[float | None, ...]


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars over the same series; `mark` is a share to draw a line at, such as chance."""

    title: str
    series: tuple[str, ...]
    groups: tuple[Bar, ...]
    mark: tuple[str, float] | None = None


@dataclass(frozen=True)
class Text:
    """One text with its title and a line of figures."""

    title: str
    text: str
    figures: str = ""


@dataclass(frozen=True)
class SideBySide:
    """A prompt, what was written on it, and perhaps a reference answer."""

    title: str
    prompt: str
    columns: tuple[Text, ...]
    reference: str | None = None
    is_code: bool = False


@dataclass(frozen=True)
class Place:
    """A model by size and quality: megabytes, perplexity ratio, and which series it is of."""

    name: str
    megabytes: float
    ratio: float
    series: int


@dataclass(frozen=True)
class Places:
    """Models as dots; where there are no pictures, the table beside it says the same."""

    title: str
    series: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Dot:
    """A figure and the value it was made with."""

    name: str
    value: float
    figure: float


@dataclass(frozen=True)
class Dots:
    """Figures over values, at least one, of which the lowest is the best; with `is_log` all values are above 0."""

    title: str
    unit: str
    dots: tuple[Dot, ...]
    is_log: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a picture: steps and values, the number of its colour; `dots` where each point stands for itself."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    dots: bool = False


@dataclass(frozen=True)
class Curves:
    """Lines over the steps of training; `top` is the highest value shown at first, None = all."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    top: float | None = None


@dataclass(frozen=True)
class Heat:
    """A figure of each layer, as shades: blocks down, families across; None where there is no such layer."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    render: Callable[[float], str]


@dataclass(frozen=True)
class Histograms:
    """Small pictures of counts, one a name; `mark` is the bin to draw a line at."""

    title: str
    note: str
    counts: tuple[tuple[str, tuple[int, ...]], ...]
    mark: int | None = None


@dataclass(frozen=True)
class Folded:
    """A text that is shown when it is asked for."""

    title: str
    text: str


@dataclass(frozen=True)
class Grid:
    """Pictures beside each other, as many as there is room for."""

    blocks: tuple[Curves | Heat | Bars | Histograms, ...]


Block = Paragraph | Items | Table | Bars | Places | Dots | SideBySide | Curves | Heat | Histograms | Folded | Grid
PICTURES = (Places, Dots, Curves, Heat, Histograms, Grid)
"""What plain text leaves out."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tile:
    """A figure to see first: what it is, its value, and one line on how to read it."""

    name: str
    value: str
    note: str


Mood = Literal["good", "busy", "bad", "plain"]


@dataclass(frozen=True)
class Status:
    """Where a run stands: a word, a sentence, and how it is to be taken."""

    word: str
    said: str
    mood: Mood


@dataclass(frozen=True)
class Document:
    """A whole report; with a `status` it is that of a run, and begins with its contents."""

    title: str
    subtitle: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    footer: str
    status: Status | None = None
