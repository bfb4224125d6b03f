"""Where two answers part, whole and while the second comes."""

from __future__ import annotations

import pytest

from bitnet_train.serve.chat.parting import Marked, parts_at, told

ANSWERS = [
    ("The fox runs.", "The fox sits.", "The fox »sits.", "after 2 words: A writes 'runs.', B writes 'sits.'"),
    ("The fox runs.", "The foxes run.", "The »foxes run.", "after 1 word: A writes 'fox', B writes 'foxes'"),
    ("The fox", "The fox runs", "The fox »runs", "after 2 words: A ends, B writes 'runs'"),
    ("The fox runs", "The fox", "The fox", "after 2 words: A writes 'runs', B ends"),
    ("Yes", "No", "»No", "from the first word on: A writes 'Yes', B writes 'No'"),
    ("one\n two", "one two", "one »two", "after 1 word: A writes 'two', B writes 'two'"),
    ("", "x", "»x", "from the first word on: A ends, B writes 'x'"),
]


@pytest.mark.parametrize(("first", "second", "marked", "line"), ANSWERS)
def test_the_first_word_that_differs_is_told(first: str, second: str, marked: str, line: str) -> None:
    assert told(first, second, ("A", "B")) == f"They part {line}."


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("first", "second", "marked", "line"), ANSWERS)
def test_the_mark_is_found_in_pieces_of_any_size(first: str, second: str, marked: str, line: str, size: int) -> None:
    shown: list[str] = []
    writer = Marked(first, shown.append)
    for at in range(0, len(second), size):
        writer.piece(second[at : at + size])
    writer.finish()
    assert "".join(shown) == marked


def test_the_same_text_is_not_marked() -> None:
    shown: list[str] = []
    writer = Marked("a b\n c ", shown.append)
    for letter in "a b\n c ":
        writer.piece(letter)
    writer.finish()
    assert "".join(shown) == "a b\n c "
    assert parts_at("a b", "a b") is None
    assert told("a", "a", ("A", "B")) == "Both wrote the same."


def test_an_answer_comes_word_by_word_and_not_at_its_end() -> None:
    shown: list[str] = []
    writer = Marked("a b c", shown.append)
    writer.piece("a b x y")
    assert "".join(shown) == "a b »x y"
