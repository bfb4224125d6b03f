"""Read a web page (*.html) as plain text: what its paragraphs, headings and lists say, if it is English."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_BREAK = re.compile("p|div|section|blockquote|li|d[td]|h[1-6]|br|table|figcaption")
_LEFT_OUT = {"head", "script", "style", "pre", "math", "svg", "table"}
_ENGLISH = {"the", "and", "of", "to", "a", "in", "is", "for", "that"}


def text(page: str) -> str:
    """Return the text, a paragraph a line; "" for a page in another language."""
    reader = _Reader()
    reader.feed(page)
    paragraphs = [" ".join(paragraph.split()) for paragraph in reader.paragraphs]
    whole = "\n".join(filter(None, paragraphs))
    return whole if is_english(whole) else ""


def is_english(text: str) -> bool:
    """Whether an eighth of the words are among nine of the commonest, as in English prose."""
    words = text.lower().split()
    return sum(word in _ENGLISH for word in words) > len(words) / 8


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.paragraphs = [""]
        self._depth = 0  # of elements that are left out

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._depth += tag in _LEFT_OUT
        if _BREAK.fullmatch(tag):
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in _LEFT_OUT
        if _BREAK.fullmatch(tag):
            self.paragraphs.append("")

    def handle_data(self, data: str) -> None:
        if self._depth == 0:
            self.paragraphs[-1] += data
