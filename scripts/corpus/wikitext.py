"""Read WikiText in its tokenised form (arXiv 1609.07843) back into the text of its articles.

That form parts punctuation from words by blanks, writes " @-@ ", " @,@ " and " @.@ " inside words and numbers, and
<unk> for every rare word. Headings and <unk> are left out, the rest is joined again; a rare word stays missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TITLE = re.compile(r"^ = [^=].* = \n", re.MULTILINE)
_HEADING = re.compile(r"^ = .* = $", re.MULTILINE)
_JOINED = (
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r"<unk>"), ""),
    (re.compile(r" ('(?:s|t|re|ve|ll|d|m))\b"), r"\1"),
    (re.compile(r'" ([^"\n]*?) "'), r'"\1"'),
    (re.compile(r" ' ([^'\n]*?) ' "), r" '\1' "),
    (re.compile(r" ([,.;:!?)\]%])"), r"\1"),
    (re.compile(r"([(\[$£]) "), r"\1"),
    (re.compile(r" – "), "–"),
    (re.compile(r" {2,}"), " "),
)


def is_wikitext(text: str) -> bool:
    """Whether a text begins as WikiText does, with the title of an article."""
    return re.match(r"\s* = [^=\n]+ = \n", text) is not None


def articles(tokenised: str) -> Iterator[str]:
    """Yield the text of each article, a paragraph a line."""
    for article in _TITLE.split(tokenised):
        text = _HEADING.sub("", article)
        for pattern, joined in _JOINED:
            text = pattern.sub(joined, text)
        paragraphs = filter(None, map(str.strip, text.split("\n")))
        if whole := "\n".join(paragraphs):
            yield whole
