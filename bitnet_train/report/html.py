"""A document as one HTML page that needs nothing else; every text of a model or a file is escaped."""

from __future__ import annotations

from html import escape

from bitnet_train.report.bars import render_bars
from bitnet_train.report.document import Bars, Block, Document, Paragraph, Section, SideBySide, Table, Tile
from bitnet_train.report.style import CSS

_ONE_BIT = "1-bit"


def render_html(document: Document) -> str:
    """Return the whole page."""
    title = escape(document.title)
    tiles = "".join(_tile(tile) for tile in document.tiles)
    sections = "\n".join(_section(section) for section in document.sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head>\n<body><main>\n"
        f"<header><h1>{title}</h1><p>{escape(document.subtitle)}</p></header>\n"
        f'<div class="tiles">{tiles}</div>\n{sections}\n<footer>{escape(document.footer)}</footer>\n'
        "</main></body></html>\n"
    )


def _tile(tile: Tile) -> str:
    return (
        f'<div class="tile"><span>{escape(tile.name)}</span><b>{escape(tile.value)}</b>'
        f"<span>{escape(tile.note)}</span></div>"
    )


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f"<section><h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"<p>{escape(block.text)}</p>"
        case Table():
            return _table(block)
        case Bars():
            return render_bars(block)
        case SideBySide():
            return _side_by_side(block)


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'


def _side_by_side(block: SideBySide) -> str:
    kind = ' class="code"' if block.is_code else ""
    columns = "".join(
        f'<div class="column{" one-bit" if text.title == _ONE_BIT else ""}"><h4>{escape(text.title)}'
        f"<small>{escape(text.figures)}</small></h4><pre{kind}>{escape(text.text)}</pre></div>"
        for text in block.columns
    )
    reference = "" if block.reference is None else _details("Reference", block.reference, "")
    return (
        f"<h3>{escape(block.title)}</h3>{_details('Prompt', block.prompt, kind)}"
        f'<div class="columns">{columns}</div>{reference}'
    )


def _details(title: str, text: str, kind: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre{kind}>{escape(text)}</pre></details>"
