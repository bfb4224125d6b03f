from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.runtime.native.written import Written


def decode(token_ids):
    """Every id is a byte."""
    return bytes(token_ids).decode(errors="replace")


def write(text, stop=()):
    pieces = []
    written = Written(decode, stop, pieces.append)
    data = text if isinstance(text, bytes) else text.encode()
    taken = next((number for number, byte in enumerate(data, 1) if written.push(byte)), len(data))
    return written.finish(), pieces, taken


def test_a_character_of_several_tokens_comes_in_one_piece():
    text, pieces, _ = write("añ日🙂b")
    assert text == "añ日🙂b"
    assert pieces == ["a", "ñ", "日", "🙂", "b"]


def test_a_text_that_ends_inside_a_character_ends_with_the_replacement_character():
    text, pieces, _ = write("日".encode()[:2] + b"")
    assert text == "\N{REPLACEMENT CHARACTER}" == "".join(pieces)
    assert write(b"a\xffb")[0] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("text", "stop", "kept", "tokens"),
    [
        ("one. two.", [". t"], "one", 6),
        ("abababc!", ["ababc"], "ab", 7),
        ("one two", ["two", "e t"], "on", 5),
        ("x🙂y", ["🙂"], "x", 5),
        ("nothing here", ["##"], "nothing here", 12),
        ("ends in #", ["##"], "ends in #", 9),
        ("##", ["##"], "", 2),
    ],
)
def test_a_stop_string_ends_the_text_before_it_wherever_it_begins(text, stop, kept, tokens):
    made, pieces, taken = write(text, stop)
    assert made == kept == "".join(pieces)
    assert taken == tokens


def test_no_piece_is_the_beginning_of_a_stop_string():
    _, pieces, _ = write("a#b##c", ["###"])
    assert "".join(pieces) == "a#b##c"
    assert "#" not in pieces, "a lone # could still become a stop string"


def test_a_tokenizer_that_drops_the_space_of_the_first_token_loses_none_later():
    words = ["▁the", "▁quick", "▁fox", "es"]

    def join(token_ids):
        return "".join(words[i] for i in token_ids).replace("▁", " ").removeprefix(" ")

    pieces = []
    written = Written(join, (), pieces.append)
    for token_id in range(4):
        written.push(token_id)
    assert written.finish() == "the quick foxes" == "".join(pieces)
    assert pieces == ["the", " quick", " fox", "es"]


def test_nothing_is_taken_after_a_stop_and_an_empty_stop_string_is_refused():
    written = Written(decode, ["b"])
    assert [written.push(byte) for byte in b"abc"] == [False, True, True]
    assert written.finish() == written.finish() == "a"
    with pytest.raises(DataError, match="A stop string is empty"):
        Written(decode, ["ok", ""])
