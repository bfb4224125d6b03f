"""What a report is made of. Strings are plain text; each writer escapes them for its own format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row, the others are figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


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


Block = Paragraph | Table | Bars | SideBySide


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


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    subtitle: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    footer: str
