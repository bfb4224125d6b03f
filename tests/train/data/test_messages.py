from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.messages import EMPTY_TURNS, Message, read_message, read_messages

ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def read(*turns: Any) -> tuple[Message, ...]:
    return read_messages("row", list(turns), "", Counter())


@pytest.mark.parametrize("content", [None, "", "absent"])
def test_a_turn_of_calls_without_text_keeps_its_calls_and_is_trained(content: str | None) -> None:
    turn = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    if content == "absent":
        del turn["content"]
    message = read_message("row", turn)
    assert message == Message("assistant", "", True, {"tool_calls": [CALL]})


def test_other_fields_go_along_as_they_stand_and_null_ones_count_as_absent() -> None:
    turn = {**ANSWERED, "reasoning_content": "because", "name": "bot", "tool_calls": None}
    assert read_message("row", turn) == Message("assistant", "a", True, {"reasoning_content": "because", "name": "bot"})


def test_a_table_that_gives_every_message_the_fields_of_all_roles_is_read() -> None:
    absent = dict.fromkeys(["role", "content", "from", "value", "tool_calls", "name", "weight"])
    turns = [
        {**absent, "role": "user", "content": "q"},
        {**absent, "role": "assistant", "tool_calls": [CALL]},
        {**absent, "role": "tool", "content": "3", "name": "f"},
        {**absent, "from": "gpt", "value": "a", "weight": 1.0},
    ]
    assert [(m.role, m.content, m.trained, sorted(m.fields)) for m in read(*turns)] == [
        ("user", "q", False, []),
        ("assistant", "", True, ["tool_calls"]),
        ("tool", "3", False, ["name"]),
        ("assistant", "a", True, []),
    ]


@pytest.mark.parametrize("name", ["weight", "loss_weight", "train", "training", "trainable", "loss"])
@pytest.mark.parametrize(
    ("value", "trained"),
    [
        *((off, False) for off in (0, 0.0, "0", "0.0", False, "false", "False")),
        *((on, True) for on in (1, 1.0, "1", True, "true", None)),
    ],
)
def test_a_weight_or_a_flag_of_a_turn_is_honoured(name: str, value: Any, trained: bool) -> None:
    message = read_message("row", {**ANSWERED, name: value})
    assert message == Message("assistant", "a", trained)


@pytest.mark.parametrize("value", [0.5, "0.5", 2, -1, "some", [1]])
def test_a_weight_between_all_and_nothing_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DataError, match=r"row message 2: `weight` .* is not supported: .* learned \(1, true\)"):
        read(ASKED, {**ANSWERED, "weight": value})


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({**ANSWERED, "train_detail": [{"begin_offset": 0}]}, r"`train_detail` \(parts of a turn\) is not supported"),
        ({**ANSWERED, "weight": 0, "train": True}, r"`weight` 0, `train` True contradict each other"),
        ({**ASKED, "train": True}, r"`train` True on a turn of role user: only the assistant's turns can be learned"),
        ({"role": "user", "content": None}, r"needs role and content.*content \(NoneType\)"),
        ({"role": 3, "content": "x"}, r"`role` must be a str, not int"),
        ({**ASKED, "content": [{"type": "image_url", "image_url": "x"}]}, r"not a list with image_url; images and"),
        ({**ASKED, "content": {"a": 1}}, r"not dict; images and"),
        ({**ANSWERED, "tool_calls": "f(x)"}, r"`tool_calls` is text, but not JSON"),
        ({**ANSWERED, "tool_calls": ["f"]}, r"`tool_calls` must be a list of objects"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(turn: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"row.*{message}"):
        read_message("row", turn)


def test_a_weight_of_zero_may_stand_on_any_turn() -> None:
    assert [message.trained for message in read({**ASKED, "weight": 0}, ANSWERED)] == [False, True]


def test_assistant_turns_that_say_nothing_are_context_and_counted() -> None:
    notes: Counter[str] = Counter()
    empty = {"role": "assistant", "content": " "}
    messages = read_messages("row", [ASKED, empty, ASKED, ANSWERED, ASKED, {**empty, "weight": 1}], "", notes)
    assert [message.trained for message in messages] == [False, False, False, True, False, True]
    assert notes == {EMPTY_TURNS: 1}


def test_a_chat_whose_answers_all_say_nothing_is_refused_with_that_reason() -> None:
    with pytest.raises(DataError, match=r"row: no assistant turn .*\(turns: user, assistant; 1 of the assistant's say"):
        read(ASKED, {"role": "assistant", "content": ""})


def test_reasoning_alone_is_something_to_learn() -> None:
    assert read_message("row", {"role": "assistant", "reasoning_content": "hm"}).trained
