"""Where two answers part: the first word that is another one, found while the second of them comes."""

from __future__ import annotations

import re
from collections.abc import Callable

MARK = "»"
_WORD = re.compile(r"\s*\S+")
_LAST_WORD = re.compile(r"(?<!\S)\S+\Z")


def parts_at(first: str, second: str) -> int | None:
    """Return where the first word that differs begins, in both texts; None where they are the same."""
    if first == second:
        return None
    pairs = zip(first, second, strict=False)
    common = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
    if not (first[common : common + 1] + second[common : common + 1]).strip():
        return common  # a word is whole in both
    begun = _LAST_WORD.search(first, 0, common)
    return common if begun is None else begun.start()


def told(first: str, second: str, names: tuple[str, str]) -> str:
    """Return a line for people on where two answers part."""
    at = parts_at(first, second)
    if at is None:
        return "Both wrote the same."
    words = len(first[:at].split())
    where = "from the first word on" if words == 0 else f"after {words} {'word' if words == 1 else 'words'}"
    return f"They part {where}: {names[0]} {_next_word(first, at)}, {names[1]} {_next_word(second, at)}."


def _next_word(text: str, at: int) -> str:
    found = _WORD.match(text, at)
    return "ends" if found is None else f"writes {found[0].strip()[:40]!r}"


class Marked:
    """Hands the second answer on as it comes, whole words at a time, with a mark before the first that differs."""

    def __init__(self, first: str, show: Callable[[str], object]) -> None:
        self._first, self._show = first, show
        self._shown, self._held = 0, ""
        self._has_parted = False

    def piece(self, text: str) -> None:
        """Take a piece; what may still be part of a word waits."""
        self._held += text
        if self._has_parted:
            self._let_go(len(self._held))
            return
        while not self._has_parted and (word := _WORD.match(self._held)) and word.end() < len(self._held):
            self._word(word.end())
        if self._has_parted:
            self._let_go(len(self._held))

    def finish(self) -> None:
        """Let go of what waits."""
        if self._held and not self._has_parted:
            self._word(len(self._held))
        self._let_go(len(self._held))

    def _word(self, end: int) -> None:
        word, at = self._held[:end], self._shown + end
        is_same = self._first[self._shown : at] == word and not self._first[at : at + 1].strip()
        if not is_same:
            self._has_parted = True
            lead = len(word) - len(word.lstrip())
            self._let_go(lead)
            self._show(MARK)
            end -= lead
        self._let_go(end)

    def _let_go(self, end: int) -> None:
        if end:
            self._show(self._held[:end])
        self._shown, self._held = self._shown + end, self._held[end:]
