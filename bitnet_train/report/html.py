"""A document as one HTML page that needs nothing else; every text of a model or a file is escaped.

A page with curves brings a script with it, which is named by its hash in the page's own policy: nothing else runs, and
nothing is asked of the network, whatever a text in it says.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html import escape

from bitnet_train.report.bars import render_bars
from bitnet_train.report.document import (
    Bars,
    Block,
    Curves,
    Document,
    Dots,
    Folded,
    Grid,
    Heat,
    Histograms,
    Items,
    Paragraph,
    Places,
    Section,
    SideBySide,
    Table,
    Tile,
)
from bitnet_train.report.dots import render_dots
from bitnet_train.report.heat import render_heat
from bitnet_train.report.histograms import render_histograms
from bitnet_train.report.page_script import plot_script, plot_style
from bitnet_train.report.places import render_places
from bitnet_train.report.plot import render_plot
from bitnet_train.report.style import CSS, RUN_CSS

_ONE_BIT = "1-bit"
_HINT = '<p class="hint">Point at a step to read every picture there, drag to zoom, choose a name to hide its line.</p>'


def render_html(document: Document) -> str:
    """Return the whole page."""
    title = escape(document.title)
    tiles = "".join(_tile(tile) for tile in document.tiles)
    ids = _ids(document.sections)
    sections = "\n".join(_section(section, name) for name, section in zip(ids, document.sections, strict=True))
    is_run = document.status is not None
    style, script = (CSS + RUN_CSS + plot_style(), plot_script()) if is_run else (CSS, "")
    tiled = f'<div class="tiles">{tiles}</div>' if tiles or not is_run else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy(style, script) if is_run else ""}'
        f'<title>{title}</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head>\n<body><main>\n"
        f"<header><h1>{title}</h1><p>{escape(document.subtitle)}</p>{_status(document)}</header>\n"
        f"{_contents(document, ids)}{tiled}\n{sections}\n<footer>{escape(document.footer)}</footer>\n"
        f"</main>{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def _policy(style: str, script: str) -> str:
    rules = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _ids(sections: tuple[Section, ...]) -> list[str]:
    """Return a name for each section, no two alike."""
    found: list[str] = []
    for section in sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        found.append(f"{name}-{len(found)}" if name in found else name)
    return found


def _status(document: Document) -> str:
    status = document.status
    if status is None:
        return ""
    return f'<p class="status {status.mood}"><b>{escape(status.word)}</b> {escape(status.said)}</p>'


def _contents(document: Document, ids: list[str]) -> str:
    if document.status is None:
        return ""
    links = "".join(
        f'<a href="#{name}">{escape(section.title)}</a>' for name, section in zip(ids, document.sections, strict=True)
    )
    return f'<nav aria-label="Contents">{links}</nav>\n'


def _tile(tile: Tile) -> str:
    return (
        f'<div class="tile"><span>{escape(tile.name)}</span><b>{escape(tile.value)}</b>'
        f"<span>{escape(tile.note)}</span></div>"
    )


def _section(section: Section, name: str) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    return f'<section id="{name}"><h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"<p>{escape(block.text)}</p>"
        case Items():
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Bars():
            return _scroll(block.title, render_bars(block))
        case Dots():
            return _scroll(block.title, render_dots(block))
        case Places():
            return _scroll(block.title, render_places(block))
        case SideBySide():
            return _side_by_side(block)
        case Curves():
            return render_plot(block)
        case Heat():
            return render_heat(block)
        case Histograms():
            return render_histograms(block)
        case Folded():
            return _details(block.title, block.text, ' class="code"')
        case Grid():
            hint = _HINT if any(isinstance(each, Curves) for each in block.blocks) else ""
            return f'{hint}<div class="grid">{"".join(_block(each) for each in block.blocks)}</div>'


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in table.header)
    names = table.header if table.is_text else ("",) * len(table.header)
    rows = "".join(f"<tr>{_cells(names, row)}</tr>" for row in table.rows)
    kind = ' class="words"' if table.is_text else ""
    return _scroll("Table", f"<table{kind}><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>")


def _scroll(title: str, content: str) -> str:
    """Return what may be wider than a small screen, so that it can be moved there with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(title)}">{content}</div>'


def _cells(names: tuple[str, ...], row: tuple[str, ...]) -> str:
    """Return the cells of a row; those of a text know their column, for screens that have no room for columns."""
    told = (f' data-column="{escape(name)}"' if name else "" for name in names[1:])
    cells = "".join(f"<td{name}>{escape(cell)}</td>" for name, cell in zip(told, row[1:], strict=True))
    return f'<th scope="row">{escape(row[0])}</th>{cells}'


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
