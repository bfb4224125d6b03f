"""As much of a conversation as the context takes: here a message takes as many tokens as it has letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.conversation import Conversation
from bitnet_train.serve.chat.fitting import Fitted, Room, fit

CONTEXT = 100


def conversation(*lengths: int, system: int = 0) -> Conversation:
    """Return questions and answers of these lengths in turn."""
    roles = ["user", "assistant"] * len(lengths)
    turns = [{"role": role, "content": "x" * length} for role, length in zip(roles, lengths, strict=False)]
    return Conversation("x" * system if system else None, turns)


def room(messages: Sequence[dict[str, Any]]) -> int:
    return CONTEXT - sum(len(message["content"]) for message in messages)


def test_what_fits_is_sent_whole() -> None:
    assert fit(conversation(10, 20, 10), room, CONTEXT, 60, drop=True) == Fitted(0, 60)


def test_the_oldest_questions_go_with_their_answers_and_no_more_of_them_than_must() -> None:
    assert fit(conversation(10, 20, 10, 20, 10), room, CONTEXT, 40, drop=True) == Fitted(2, 40)
    assert fit(conversation(10, 20, 10, 20, 30), room, CONTEXT, 40, drop=True) == Fitted(2, 40)
    assert fit(conversation(10, 20, 10, 20, 31), room, CONTEXT, 40, drop=True) == Fitted(4, 40)


def test_the_system_message_stays() -> None:
    assert fit(conversation(10, 20, 10, system=30), room, CONTEXT, 40, drop=True) == Fitted(2, 40)


def test_what_went_before_does_not_come_back() -> None:
    talk = conversation(10, 20, 10)
    talk.first = 2
    assert fit(talk, room, CONTEXT, 40, drop=True) == Fitted(2, 40)


def test_of_a_small_context_the_answer_keeps_one_half() -> None:
    assert fit(conversation(30, 15, 10), room, CONTEXT, 512, drop=True) == Fitted(2, 90)
    assert fit(conversation(20, 15, 10), room, CONTEXT, 512, drop=True) == Fitted(0, 55)


def test_a_long_question_alone_leaves_a_short_answer_and_one_too_long_is_refused() -> None:
    assert fit(conversation(10, 10, 95), room, CONTEXT, 40, drop=True) == Fitted(2, 5)
    with pytest.raises(DataError, match=r"This question takes 100 tokens, and the context has 100: nothing is left"):
        fit(conversation(10, 10, 100), room, CONTEXT, 40, drop=True)
    with pytest.raises(DataError, match="takes 130 tokens with the system message"):
        fit(conversation(80, system=50), room, CONTEXT, 40, drop=True)


def test_refusing_names_the_ways_out() -> None:
    with pytest.raises(DataError, match=r"leaves 30 of the 100 tokens .* /reset .* /undo .* max_new_tokens=N"):
        fit(conversation(40, 20, 10), room, CONTEXT, 40, drop=False)
    assert fit(conversation(40, 20, 10), room, CONTEXT, 30, drop=False) == Fitted(0, 30)


def test_a_long_conversation_is_measured_a_few_times_and_not_once_a_question() -> None:
    asked: list[int] = []

    def counted(messages: Sequence[dict[str, Any]]) -> int:
        asked.append(len(messages))
        return room(messages)

    measure: Room = counted
    fitted = fit(conversation(*[1] * 2001), measure, CONTEXT, 40, drop=True)
    assert (2001 - fitted.first, len(asked) < 20) == (59, True)


def test_a_conversation_without_a_question_is_fitted_or_refused_too() -> None:
    talk = Conversation(None, [{"role": "tool", "content": "x" * 80}])
    assert fit(talk, room, CONTEXT, 40, drop=True) == Fitted(0, 20)
