from __future__ import annotations

from typing import Any

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.examples import (
    Completion,
    Conversation,
    Document,
    Example,
    Instruction,
    RowReader,
    content_digest,
    named_rows,
)
from bitnet_train.train.data.messages import Message
from bitnet_train.train.data.row_shape import FieldNames, Kind

NO_NAMES = FieldNames()
CHAT = Conversation((Message("user", "hi", False), Message("assistant", "yo", True)))
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
SHAPES: dict[str, tuple[dict[str, Any], Kind, Example]] = {
    "messages": ({"messages": TURNS}, "chat", CHAT),
    "conversations": ({"conversations": SHAREGPT}, "chat", CHAT),
    "alpaca": ({"instruction": "q", "input": "i", "output": "a"}, "instruction", Instruction("q", "a", "i")),
    "alpaca without input": ({"instruction": "q", "input": None, "output": "a"}, "instruction", Instruction("q", "a")),
    "question": ({"question": "q", "answer": "a"}, "instruction", Instruction("q", "a")),
    "response": ({"prompt": "q", "response": "a"}, "instruction", Instruction("q", "a")),
    "completion": ({"prompt": "q", "completion": "a"}, "instruction", Instruction("q", "a")),
    "system": ({"question": "q", "answer": "a", "system": "s"}, "instruction", Instruction("q", "a", system="s")),
    "TRL": ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "chat", CHAT),
    "TRL's answer as text": ({"prompt": TURNS[:1], "completion": "yo"}, "chat", CHAT),
    "text": ({"text": "t"}, "text", Document("t")),
    "content": ({"content": "t"}, "text", Document("t")),
    "messages before prompt": ({"prompt": "q", "completion": "a", "messages": TURNS}, "chat", CHAT),
    "pair before text": ({"text": "t", "instruction": "q", "output": "a"}, "instruction", Instruction("q", "a")),
}


def read(row: dict[str, Any], kind: Kind | None = None, names: FieldNames = NO_NAMES) -> Example:
    (example,) = RowReader(kind, names).examples([("row", row)])
    return example


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_of_a_row_is_found_by_its_fields(shape: str) -> None:
    row, kind, expected = SHAPES[shape]
    reader = RowReader(None, NO_NAMES)
    assert list(reader.examples([("row", row)])) == [expected]
    assert reader.kind == kind


def test_a_kind_that_is_given_wins_over_the_order() -> None:
    row = {"text": "t", "instruction": "q", "output": "a", "messages": TURNS}
    assert read(row, "text") == Document("t")
    assert read(row, "instruction") == Instruction("q", "a")
    assert read(row, "completion") == Completion("q", "a")


def test_fields_that_are_given_win_over_the_usual_names() -> None:
    row = {"body": "t", "ask": "q", "reply": "a", "messages": TURNS, "chat": SHAREGPT}
    assert read(row, names=FieldNames(text="body")) == Document("t")
    assert read(row, names=FieldNames(prompt="ask", answer="reply")) == Instruction("q", "a")
    assert read({"chat": SHAREGPT}, names=FieldNames(messages="chat")) == CHAT


def test_a_row_of_unknown_shape_lists_its_fields_and_the_keys_to_set() -> None:
    with pytest.raises(
        DataError, match=r"row: no field(.|\n)*The row has: body \(str\), n \(int\)(.|\n)*`data\.text_field`"
    ):
        read({"body": "x", "n": 1})


def test_a_later_row_without_the_field_is_an_error_that_names_it() -> None:
    rows = [("f:1", {"text": "a"}), ("f:2", {"txt": "b"})]
    with pytest.raises(DataError, match=r"f:2: field `text` is missing\. The row has: txt \(str\)"):
        list(RowReader(None, NO_NAMES).examples(rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": 3}, r"field `text` must be a str, not int"),
        ({"question": "q", "answer": " "}, r"`answer` is empty"),
        ({"messages": "hi"}, r"field `messages` must be a list, not str"),
        ({"messages": ["hi"]}, r"message 1: a message must be an object"),
        ({"messages": [{"role": "user"}]}, r"message 1: a message needs role and content.*role \(str\)"),
        ({"messages": TURNS[:1]}, r"no assistant turn to learn from \(turns: user\)"),
        ({"messages": []}, r"no assistant turn to learn from \(turns: none\)"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
            r"message 1: content must be text",
        ),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_an_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"row.*{message}"):
        read(row)


def test_empty_documents_are_skipped() -> None:
    rows = [("1", {"text": " \n"}), ("2", {"text": "a"})]
    assert list(RowReader(None, NO_NAMES).examples(rows)) == [Document("a")]


def test_a_function_call_is_trained_and_an_observation_is_not() -> None:
    turns = [("human", "q"), ("function_call", "{}"), ("observation", "[]"), ("gpt", "a")]
    example = read({"conversations": [{"from": role, "value": text} for role, text in turns]})
    assert isinstance(example, Conversation)
    assert [(m.role, m.trained) for m in example.messages] == [
        ("user", False),
        ("assistant", True),
        ("tool", False),
        ("assistant", True),
    ]


@pytest.mark.parametrize("name", ["weight", "loss_weight"])
def test_an_assistant_turn_of_weight_zero_is_context_only(name: str) -> None:
    turns = [TURNS[0], {**TURNS[1], name: 0.0}, TURNS[0], {**TURNS[1], name: 1.0}]
    example = read({"messages": turns})
    assert isinstance(example, Conversation)
    assert [m.trained for m in example.messages] == [False, False, False, True]


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}]
    example = read({"messages": [{"role": "assistant", "content": parts}]})
    assert isinstance(example, Conversation)
    assert example.messages[0].content == "ab"


def test_a_system_field_leads_the_chat_unless_the_chat_has_one() -> None:
    own = {"role": "system", "content": "own"}
    with_field = read({"messages": TURNS, "system": "be brief"})
    with_both = read({"messages": [own, *TURNS], "system": "be brief"})
    assert isinstance(with_field, Conversation)
    assert isinstance(with_both, Conversation)
    assert with_field.messages[0] == Message("system", "be brief", False)
    assert [m.content for m in with_both.messages] == ["own", "hi", "yo"]


def test_only_the_completion_of_a_prompt_of_turns_is_trained() -> None:
    example = read({"prompt": [*TURNS, TURNS[0]], "completion": [TURNS[1], TURNS[0], TURNS[1]]})
    assert isinstance(example, Conversation)
    assert [m.trained for m in example.messages] == [False, False, False, True, False, True]


def test_a_pair_of_texts_is_no_chat() -> None:
    with pytest.raises(DataError, match=r"row: no field to read as chat\. The row has: prompt \(str\)"):
        read({"prompt": "q", "completion": "a"}, "chat")


def test_a_prompt_of_turns_is_no_completion() -> None:
    with pytest.raises(DataError, match=r"row: field `prompt` must be a str, not list"):
        read({"prompt": TURNS[:1], "completion": "a"}, "completion")


def test_a_system_text_and_tools_are_read_where_a_row_has_them_not_only_in_the_first() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    rows = [("1", {"messages": TURNS}), ("2", {"messages": TURNS, "system": "be brief", "tools": [tool]})]
    reader = RowReader(None, NO_NAMES)
    _, second = reader.examples(rows)
    assert isinstance(second, Conversation)
    assert second.messages[0] == Message("system", "be brief", False)
    assert second.tools == (tool,)
    assert not reader.unused_fields


def test_turns_that_say_nothing_are_noted() -> None:
    reader = RowReader(None, NO_NAMES)
    empty = {"role": "assistant", "content": ""}
    list(reader.examples([("1", {"messages": [TURNS[0], empty, *TURNS]})]))
    assert reader.notes == {"assistant turns that say nothing: read as context, not learned": 1}


def test_fields_that_are_not_read_are_counted() -> None:
    reader = RowReader(None, NO_NAMES)
    list(
        reader.examples(
            [
                ("1", {"conversations": SHAREGPT, "tools": "[]", "source": "s"}),
                ("2", {"conversations": SHAREGPT, "id": 1, "source": "s"}),
            ]
        )
    )
    assert reader.unused_fields == {"id": 1, "source": 2}


def test_an_instruction_becomes_a_chat_with_its_input_below_it() -> None:
    chat = Instruction("q", "a", "more", "s").as_conversation()
    assert [(m.role, m.content, m.trained) for m in chat.messages] == [
        ("system", "s", False),
        ("user", "q\n\nmore", False),
        ("assistant", "a", True),
    ]


def test_the_content_digest_sees_every_field_but_the_place() -> None:
    assert content_digest(Instruction("q", "a", where="1")) == content_digest(Instruction("q", "a", where="2"))
    different = [Document("q"), Instruction("q", "a"), Instruction("q", "b"), Instruction("q", "a", "i"), CHAT]
    assert len({content_digest(example) for example in different}) == len(different)


def test_the_content_digest_is_the_same_on_every_machine() -> None:
    assert content_digest(Document("naïve")).hex()[:16] == "ae0b5780425cca4c"
    assert content_digest(CHAT).hex()[:16] == "1803f8badded2454"


def test_the_content_digest_sees_the_fields_of_messages_and_the_tools() -> None:
    said = Message("assistant", "yo", True, {"reasoning_content": "hm"})
    different = [CHAT, Conversation((CHAT.messages[0], said)), Conversation(CHAT.messages, tools=({"name": "f"},))]
    assert len({content_digest(example) for example in different}) == len(different)


def test_the_rows_of_examples_are_named_a_few_of_many() -> None:
    read = [Completion("a", "b", f"rows.jsonl row {number}") for number in range(1, 1205)]
    assert named_rows(read[:2]) == " Read: rows.jsonl row 1, rows.jsonl row 2."
    assert named_rows(read) == " Read: rows.jsonl row 1, rows.jsonl row 2, rows.jsonl row 3 and 1,201 more."
    assert named_rows([Document("text")]) == ""
