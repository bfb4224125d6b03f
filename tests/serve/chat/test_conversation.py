"""The messages of a conversation, taken back and begun anew."""

from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.conversation import Conversation


def of(*turns: str) -> Conversation:
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return Conversation.of([{"role": roles[turn[0]], "content": turn} for turn in turns])


def said(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages]


def test_a_system_message_that_leads_can_be_changed_and_stays_first() -> None:
    conversation = of("s", "u1", "a1")
    conversation.system = "Be brief."
    assert said(conversation) == ["Be brief.", "u1", "a1"]
    conversation.system = None
    assert said(conversation) == ["u1", "a1"]


def test_a_later_system_message_or_one_with_more_fields_stays_where_it_is() -> None:
    assert of("u1", "s2", "u3").system is None
    fields = {"role": "system", "content": "x", "name": "n"}
    assert Conversation.of([fields]).messages == [fields]


def test_a_conversation_of_what_was_saved_is_the_same() -> None:
    conversation = of("s", "u1", "a1", "u2")
    assert Conversation.of(conversation.messages) == conversation


def test_undo_takes_the_last_question_with_all_that_followed() -> None:
    conversation = of("s", "u1", "a1", "u2", "t2", "a2")
    assert conversation.undo()["content"] == "u2"
    assert said(conversation) == ["s", "u1", "a1"]
    conversation.undo()
    with pytest.raises(DataError, match="Nothing was asked yet"):
        conversation.undo()


def test_reopening_keeps_the_question_and_returns_its_answer() -> None:
    conversation = of("u1", "a1")
    assert [message["content"] for message in conversation.reopen()] == ["a1"]
    assert conversation.is_open
    assert conversation.reopen() == []


def test_only_a_question_or_the_result_of_a_tool_waits_for_an_answer() -> None:
    assert [of(*turns).is_open for turns in ((), ("s",), ("u",), ("u", "a"), ("u", "a", "t"))] == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_what_is_no_longer_sent_comes_back_when_the_turns_are_fewer() -> None:
    conversation = of("u1", "a1", "u2", "a2")
    conversation.first = 2
    assert conversation.starts == [2]
    conversation.undo()
    assert conversation.first == 2
    conversation.undo()
    assert conversation.first == 0
    conversation.reset()
    assert (conversation.turns, conversation.first) == ([], 0)
