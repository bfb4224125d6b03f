"""The words of the page are schemes that this package computes."""

from __future__ import annotations

import pytest

from bitnet_train.serve.playground.schemes import FLOAT, SCHEMES, described, scheme_for


def test_every_word_is_a_scheme_in_groups_of_64() -> None:
    assert scheme_for(FLOAT, 256) is None
    for word in SCHEMES.keys() - {FLOAT}:
        scheme = scheme_for(word, 256)
        assert scheme is not None
        assert (scheme.granularity, scheme.group_size) == ("group", 64)


def test_inputs_that_are_no_groups_have_a_scale_a_row() -> None:
    scheme = scheme_for("binary3", 100)
    assert scheme is not None
    assert (scheme.granularity, scheme.planes, scheme.scale_shape(7, 100)) == ("row", 3, (7, 1))


def test_bits_count_the_scales() -> None:
    assert {row["id"]: row["bits"] for row in described()} == {
        "float": 16,
        "binary": 1.25,
        "ternary": 2.25,
        "binary2": 2.25,
        "binary3": 3.25,
        "binary4": 4.25,
    }


def test_another_word_is_none() -> None:
    with pytest.raises(KeyError):
        scheme_for("binary5", 64)
