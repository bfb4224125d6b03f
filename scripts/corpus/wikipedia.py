"""Read the articles of a MediaWiki dump (*.xml*.bz2, mediawiki.org/xml/export-0.10) as plain text.

Templates, tables, references, pictures and the lists that end an article are left out. Needs mwparserfromhell.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

try:
    import mwparserfromhell
except ImportError as error:
    raise SystemExit("A dump of a wiki needs mwparserfromhell: pip install mwparserfromhell") from error

_LEFT_OUT = {"ref", "table", "gallery", "math", "references", "timeline"}
_NO_TEXT = re.compile(r"\s*(file|image|category|[a-z-]{2,12}):", re.IGNORECASE)
_REDIRECT = re.compile(r"\s*#redirect", re.IGNORECASE)
_END = re.compile(
    r"see also|references|external links|(foot)?notes|further reading|bibliography|notes and references"
    r"|citations|sources",
    re.IGNORECASE,
)
_LEFTOVER = ("{|", "|", "!", "thumb|")


def articles(path: Path) -> Iterator[str]:
    """Yield the text of each article, a paragraph a line; pages of other namespaces and redirects are left out."""
    with bz2.open(path) as dump:
        for _, element in ElementTree.iterparse(dump):
            if _name(element) == "page":
                markup, namespace = (_text(element, name) for name in ("text", "ns"))
                element.clear()
                if namespace == "0" and not _REDIRECT.match(markup) and (text := plain(markup)):
                    yield text


def plain(markup: str) -> str:
    """Return what a reader of the page reads, up to the lists at its end."""
    code = mwparserfromhell.parse(markup)
    unread = [tag for tag in code.filter_tags() if str(tag.tag) in _LEFT_OUT]
    unread += [link for link in code.filter_wikilinks() if _NO_TEXT.match(str(link.title))]
    for node in unread:
        if code.contains(node):  # not within one that is gone already
            code.remove(node)
    paragraphs = []
    for line in map(str.strip, code.strip_code().split("\n")):
        if _END.fullmatch(line):
            break
        if line and not line.startswith(_LEFTOVER):
            paragraphs.append(line)
    return "\n".join(paragraphs)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _text(page: ElementTree.Element, name: str) -> str:
    return next((element.text or "" for element in page.iter() if _name(element) == name), "")
