"""Ranges as they are written: which word is one, what it tries, and what is none."""

from __future__ import annotations

import math

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.sweep.ranges import grid, is_range, parts, read_range


@pytest.mark.parametrize(
    ("kind", "text", "several"),
    [
        ("Any", "1e-4..1e-2", True),
        ("int | None", "log:2..32", True),
        ("float", "0..0.2/3", True),
        ("float", "1e-4..", True),
        ("float", "linear:x", True),
        ("str", "a,b", True),
        ("group", "binary_row,ternary_row", True),
        ("list[float]", "[0.9,0.95]", False),
        ("list[float]", "[0.9,0.95],[0.9,0.99]", True),
        ("str", "../1..2", False),
        ("str", "log: one", False),
        ("str", "'a, b'", False),
        ("float", "1e-4", False),
    ],
)
def test_what_asks_for_several_values_is_told_from_what_asks_for_one(kind: str, text: str, several: bool) -> None:
    assert is_range(kind, text) is several


def test_ends_that_are_two_decades_apart_are_tried_in_the_logarithm() -> None:
    assert read_range("k", "Any", "1e-4..1e-2").is_log
    assert not read_range("k", "Any", "1e-4..9e-3").is_log
    assert not read_range("k", "Any", "linear:1e-4..1e-2").is_log
    assert read_range("k", "float", "log:1..2").is_log
    assert not read_range("k", "float", "0..100").is_log


def test_a_grid_has_both_ends_and_what_lies_between() -> None:
    tried = read_range("k", "float", "1e-4..1e-2/3").grid()
    assert (tried[0], tried[-1]) == (1e-4, 1e-2)
    assert math.isclose(float(tried[1]), 1e-3, rel_tol=1e-11)  # written with twelve digits
    assert read_range("k", "int", "2..5").grid() == (2, 3, 4, 5)
    assert read_range("k", "int", "log:1..64/4").grid() == (1, 4, 16, 64)
    points = list(grid([read_range("a", "int", "1..2"), read_range("b", "str", "x, y")]))
    assert points == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_values_become_words_of_a_command_line() -> None:
    assert read_range("optimizer.lr", "Any", "1e-4..1e-2").word(0.0025) == "optimizer.lr=0.0025"
    assert read_range("weight", "group", "a,b").word("a") == "weight=a"
    assert parts("[1,2],'a,b',c") == ["[1,2]", "'a,b'", "c"]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("float", "1e-4..", "is no range"),
        ("float", "1e-2..1e-4", "the first end must be below the second"),
        ("int", "1..2.5", "whole numbers"),
        ("float", "log:0..1", "a logarithm needs ends above 0"),
        ("float", "0..1/1", "between 2 and"),
        ("str", "a,,b", "a choice is empty"),
        ("str", "a,b,a", "names `a` twice"),
    ],
)
def test_what_is_no_range_is_refused(kind: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match="`k=") as error:
        read_range("k", kind, text)
    assert said in str(error.value)


def test_a_grid_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="a grid needs points"):
        list(grid([read_range("k", "float", "0..1")]))
    with pytest.raises(ConfigError, match="1,000,000 points"):
        list(grid([read_range(key, "int", "1..1000") for key in "ab"]))
