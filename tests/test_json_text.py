from __future__ import annotations

import json

import pytest

from bitnet_train.json_text import MOST_LEVELS, parse_json


def nested(levels: int, opened: str = "[", closed: str = "]") -> str:
    return opened * levels + "1" + closed * levels


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "é"]}', "[]", "3", nested(MOST_LEVELS), " " + nested(3)])
def test_what_it_says_is_what_json_says(text: str) -> None:
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        nested(MOST_LEVELS + 1),
        nested(MOST_LEVELS + 1, '{"a":', "}"),
        nested(20_000),
        "[" * 20_000,
        "[" + nested(MOST_LEVELS) + ",1]",
        "9" * 5000,
        "{",
        "",
    ],
    ids=lambda text: text[:9] + str(len(text)),
)
def test_all_else_is_one_error_with_a_place(text: str) -> None:
    for given in (text, text.encode()):
        with pytest.raises(json.JSONDecodeError) as caught:
            parse_json(given)
        assert caught.value.lineno == 1
        assert len(str(caught.value)) < 120


def test_many_brackets_side_by_side_are_no_depth() -> None:
    assert parse_json("[" + "[],{}," * 500 + "1]")[-1] == 1


def test_bytes_that_are_no_text_are_an_error_of_decoding() -> None:
    with pytest.raises(UnicodeDecodeError):
        parse_json(b'["\xff\xfe"]')


def test_the_place_is_that_of_the_bracket_that_goes_too_deep() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        parse_json('["[[\\"[",\n' + "[" * MOST_LEVELS)
    assert (caught.value.lineno, caught.value.colno) == (2, MOST_LEVELS)


def test_brackets_in_a_text_are_no_depth() -> None:
    assert parse_json(json.dumps("[{" * 500 + '\\"')) == "[{" * 500 + '\\"'


def test_objects_and_numbers_may_be_made_otherwise_and_what_those_refuse_is_wrong_with_the_text() -> None:
    def refuse(given: object) -> None:
        raise ValueError(f"no {given}")

    assert parse_json('{"a": 1, "a": 2}', pairs=list) == [("a", 1), ("a", 2)]
    for how in ({"pairs": refuse}, {"constant": refuse}):
        with pytest.raises(json.JSONDecodeError, match="no "):
            parse_json('{"a": NaN}', **how)
