"""Two answers in columns of a terminal."""

from __future__ import annotations

import re
from io import StringIO

import pytest

from bitnet_train.serve.chat.columns import Columns


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def shown(first: str, second: str, *, is_styled: bool = True) -> str:
    out = Terminal()
    with Columns(("1-bit", "original"), out, is_styled=is_styled) as columns:
        for letter in first:
            columns.piece(0, letter)
        for letter in second:
            columns.piece(1, letter)
    return out.getvalue()


def lines_of(text: str) -> list[str]:
    """Return the lines that stay, without styles."""
    last = text.rpartition("1-bit")[2]
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in last.splitlines()[1:]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_both_stand_side_by_side_and_the_word_where_they_part_is_marked_in_both() -> None:
    (line,) = [line for line in lines_of(shown("The fox runs.", "The fox sits.")) if line]
    assert re.fullmatch(r"The fox »runs\.\s{20,}The fox »sits\.", line)


def test_the_same_is_not_marked() -> None:
    assert "»" not in shown("The fox.", "The fox.")


def test_an_answer_longer_than_the_screen_is_whole_in_the_end() -> None:
    first = "\n".join(f"line {number}" for number in range(50))
    left = lines_of(shown(first, "short"))
    assert [line.split("  ")[0].lstrip("»") for line in left if line] == first.split("\n")


def test_controls_of_an_answer_never_reach_the_terminal_nor_does_markup_or_an_emoji_code() -> None:
    text = shown("\x1b]0;x\x07[red]:smile:", "\x1b]0;x\x07[red]:smile:")
    assert "\x1b]0" not in text
    assert "\\x1b]0;x\\x07[red]:smile:" in text


def test_without_styles_nothing_is_reversed() -> None:
    assert "\x1b[1;7m" in shown("a", "b")
    assert "\x1b[1;7m" not in shown("a", "b", is_styled=False)
