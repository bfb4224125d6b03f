"""A document as Markdown, readable as it stands."""

from __future__ import annotations

import re

from bitnet_train.report.document import PICTURES, Bars, Block, Document, Folded, Items, Paragraph, SideBySide, Table
from bitnet_train.report.figures import percent

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def render_markdown(document: Document) -> str:
    """Return the whole document."""
    parts = [f"# {_escape(document.title)}", _escape(document.subtitle)]
    for section in document.sections:
        shown = (block for block in section.blocks if not isinstance(block, PICTURES))  # a table says the same
        parts += [f"## {_escape(section.title)}", *map(_block, shown)]
    return "\n\n".join([*parts, "---", _escape(document.footer)]) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return _escape(block.text)
        case Items():
            return "\n".join(f"- {_escape(item)}" for item in block.items)
        case Table():
            return render_table(block.header, block.rows)
        case Bars():
            rows = tuple((bar.name, *(percent(share) for share in bar.shares), bar.note) for bar in block.groups)
            return f"**{_escape(block.title)}**\n\n" + render_table(("", *block.series, ""), rows)
        case SideBySide():
            return _side_by_side(block)
        case Folded():
            return f"**{_escape(block.title)}**\n\n{_fenced(block.text)}"
        case _:
            raise TypeError(f"{type(block).__name__} is a picture")


def render_table(header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """Return a table; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[_escape(cell) for cell in header], rule, *([_escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _side_by_side(block: SideBySide) -> str:
    parts = [f"### {_escape(block.title)}", "Prompt:", _fenced(block.prompt)]
    for text in block.columns:
        parts += [f"**{_escape(text.title)}** ({_escape(text.figures)})", _fenced(text.text)]
    if block.reference is not None:
        parts += ["Reference:", _fenced(block.reference)]
    return "\n\n".join(parts)


def _fenced(text: str) -> str:
    """Return the text in a fence that is longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("\n", " ")
