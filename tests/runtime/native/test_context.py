from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.runtime.native.context import Context


def test_a_prompt_that_fits_to_the_last_token_is_given_back_as_plain_numbers() -> None:
    assert Context(10, 8, 8).check((0, 9, 3), 5) == [0, 9, 3]


@pytest.mark.parametrize(
    ("token_ids", "max_new_tokens", "message"),
    [
        ((), 1, "There are no token ids"),
        ((1, 10), 1, "Token id 10 is not one of this model, which knows 0 to 9"),
        ((1, -1), 1, "Token id -1 is not one"),
        ((1, 2, 3), 6, r"3 tokens and `max_new_tokens` is 6, together 9, but this model's context is 8 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused_with_the_numbers(token_ids, max_new_tokens, message) -> None:
    with pytest.raises(DataError, match=message):
        Context(10, 8, 8).check(token_ids, max_new_tokens)


def test_a_limit_that_was_asked_for_is_named_as_such() -> None:
    with pytest.raises(DataError, match="but `max_tokens` is 4 tokens"):
        Context(10, 8, 4).check((1, 2, 3), 2)
