"""What is typed becomes a message of one line, or of several."""

from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.typed import checked, goes_on, is_open, unquoted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""', True),
        ('"""one\ntwo', True),
        ('"""one"""', False),
        ('  """one\ntwo\n"""', False),
        ('/system """be', True),
        ('/system """be"""', False),
        ('a docstring """ in the middle', False),
        ("plain", False),
    ],
)
def test_a_block_of_three_quotes_is_open_until_the_next_three(text: str, expected: bool) -> None:
    assert is_open(text) is expected


@pytest.mark.parametrize(
    ("line", "expected"), [("on \\", True), ("a path C:\\\\", False), ("\\\\\\", True), ("no", False), ("", False)]
)
def test_a_backslash_that_is_not_escaped_goes_on(line: str, expected: bool) -> None:
    assert goes_on(line) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"""\none\ntwo\n"""', "one\ntwo"),
        ('"""one"""', "one"),
        ('"""\n\n  kept\n\n"""', "\n  kept\n"),
        ('/system """\nBe brief.\n"""', "/system Be brief."),
        ('"""never closed', "never closed"),
        ('a """ b', 'a """ b'),
    ],
)
def test_the_quotes_of_a_block_are_left_out(text: str, message: str) -> None:
    assert unquoted(text) == message


def test_too_many_characters_and_bytes_that_are_no_text_are_refused() -> None:
    assert checked("x" * 1_000_000) == "x" * 1_000_000
    with pytest.raises(DataError, match=r"has 1,000,001 characters, and one of more than 1,000,000 is not taken"):
        checked("x" * 1_000_001)
    with pytest.raises(DataError, match=r"bytes that are not UTF-8. Nothing was sent"):
        checked("caf\udce9")
