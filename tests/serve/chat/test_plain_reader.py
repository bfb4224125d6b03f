"""Messages of a pipe: lines, blocks, and what cannot be sent."""

from __future__ import annotations

from io import BytesIO

import pytest

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.plain_reader import PlainReader


def messages(raw: bytes, most_bytes: int = 1000) -> list[str]:
    """Return every message; of one that is refused, the error."""
    reader, found = PlainReader(BytesIO(raw), most_bytes=most_bytes), []
    while True:
        try:
            found.append(reader.read())
        except EOFError:
            return found
        except DataError as error:
            found.append(f"! {error}")


def test_a_line_is_a_message_with_any_line_break_and_without_the_last() -> None:
    assert messages(b"one\ntwo\r\n\nthree") == ["one", "two", "", "three"]
    assert messages(b"") == []


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_message() -> None:
    assert messages("\ufeffhi\n".encode()) == ["hi"]


def test_a_backslash_at_the_end_goes_on_in_the_next_line() -> None:
    assert messages(b"one \\\ntwo\\\nthree\nnext") == ["one \ntwo\nthree", "next"]
    assert messages(b"the end \\") == ["the end "]


def test_a_block_takes_its_lines_as_they_are_until_it_closes() -> None:
    raw = b'"""\nfirst\\\n/exit\n\n"""\nnext\n'
    assert messages(raw) == ['"""\nfirst\\\n/exit\n\n"""', "next"]
    assert messages(b'"""\nno end') == ['"""\nno end']


def test_three_quotes_that_do_not_begin_a_message_open_no_block() -> None:
    assert messages(b'a """ b\n"""c"""\nd') == ['a """ b', '"""c"""', "d"]


def test_bytes_that_are_no_text_are_told_with_their_line_and_the_rest_goes_on() -> None:
    assert messages(b"fine\ncaf\xe9\nfine too") == [
        "fine",
        "! Line 2 is not UTF-8: byte 0xe9 at position 3. The message was not sent.",
        "fine too",
    ]


def test_of_a_block_with_such_bytes_no_line_is_a_message_of_its_own() -> None:
    refused, following = messages(b'"""\nok\n\xff\n/exit\n"""\nnext\n')
    assert refused.startswith("! Line 3 is not UTF-8")
    assert following == "next"


def test_a_line_too_long_is_left_out_and_a_block_that_it_closes_is_closed() -> None:
    assert messages(b"x" * 5000 + b"\nnext") == [
        "! Line 1 has more than 1,000 bytes. The message was not sent.",
        "next",
    ]
    refused, following = messages(b'"""\n' + b"x" * 5000 + b'"""\nnext')
    assert (refused[:8], following) == ("! Line 2", "next")


def test_a_block_of_endless_lines_keeps_no_more_than_a_message() -> None:
    class Endless(BytesIO):
        left = 300_000

        def readline(self, size: int | None = -1, /) -> bytes:
            self.left -= 1
            return b'"""\n' if self.left == 299_999 else b"0123456789\n" if self.left > 0 else b""

    reader = PlainReader(Endless())
    with pytest.raises(DataError, match="makes the message longer than 1,000,000 characters"):
        reader.read()
    with pytest.raises(EOFError):
        reader.read()
