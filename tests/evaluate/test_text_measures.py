from __future__ import annotations

import pytest

from bitnet_train.evaluate.text_measures import common_prefix, parses, repetition, rouge_l, token_f1


def test_repetition_is_the_share_of_4_grams_that_came_before() -> None:
    assert repetition([1, 2, 3]) == 0
    assert repetition(list(range(10))) == 0
    assert repetition([7] * 13) == pytest.approx(9 / 10)
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


def test_the_common_prefix_ends_at_the_first_difference_or_with_the_shorter() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0


def test_rouge_l_sees_order_and_token_f1_does_not() -> None:
    assert rouge_l("The cat sat.", "the cat sat") == token_f1("The cat sat.", "the cat sat") == 1
    assert token_f1("sat cat the", "the cat sat") == 1
    assert rouge_l("sat cat the", "the cat sat") == pytest.approx(1 / 3)
    assert rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert rouge_l("", "the") == token_f1("...", "the") == 0


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("    return x\n", True, True),
        ("    return x +\n", True, False),
        ("    y = x\n    return (y", False, True),
        ("    return (y", False, False),
        ("  \n", True, False),
        ("    return '\0'\n", True, False),
    ],
)
def test_code_parses_if_what_was_written_whole_is_python(text: str, ended: bool, expected: bool) -> None:
    assert parses("def f(x):\n", text, ended=ended) is expected
