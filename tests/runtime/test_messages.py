"""Texts, chats, and lists of either: told apart, checked, and never taken for one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.errors import DataError
from bitnet_train.runtime.messages import conversation, read_messages, read_prompts

USER = {"role": "user", "content": "hi"}
CHAT = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Hello."}, USER]


@pytest.mark.parametrize(
    ("given", "chat", "prompts", "several"),
    [
        ("hi", False, ["hi"], False),
        ("hi", True, [[USER]], False),
        (["hi", "ho"], False, ["hi", "ho"], True),
        (["hi"], True, [[USER]], True),
        ([USER], False, [[USER]], False),
        (CHAT, True, [CHAT], False),
        (tuple(CHAT), False, [CHAT], False),
        ([CHAT, [USER]], False, [CHAT, [USER]], True),
        (["hi", [USER]], False, ["hi", [USER]], True),
        ([], False, [], True),
    ],
)
def test_a_list_of_messages_is_one_chat_and_any_other_list_is_several_prompts(given, chat, prompts, several) -> None:
    assert read_prompts(given, chat=chat) == (prompts, several)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (USER, "this is a dict"),
        ([["hi"]], "this is a list of str"),
        (["hi", USER], "this is a dict"),
        (["hi", []], "this is a list"),
        (7, "this is a int"),
        ([{"content": "hi"}], "Message 1 of the chat has no `role`"),
        ([USER, {"role": "", "content": "hi"}], "Message 2 of the chat has no `role`"),
        ([{"role": "user"}], r"Message 1 of the chat \(user\) has no text"),
        ([{"role": "user", "content": 3}], "has no text as its `content`: '3'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "Images and the like"),
        ([{"role": "user", "content": "a", "at": {1}}], "holds what JSON cannot"),
        (CHAT[:3], "ends with the assistant's own message"),
    ],
    ids=str,
)
def test_what_is_neither_a_text_nor_a_chat_is_refused_by_name(given, message) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(given, chat=True)


def test_a_message_keeps_its_other_fields_and_parts_of_text_become_text() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
    parts = {"role": "tool", "name": "add", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]}
    prompts, _ = read_prompts([USER, call, parts], chat=False)
    assert prompts == [[USER, {**call, "content": ""}, {**parts, "content": "12"}]]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CHAT),
        "\ufeff" + json.dumps(CHAT, indent=1),
        json.dumps({"messages": CHAT}),
        json.dumps({"messages": CHAT}, indent=1),
        "\n".join(map(json.dumps, CHAT)) + "\n",
    ],
    ids=["list", "byte order mark", "object", "object of several lines", "a message a line"],
)
def test_a_chat_is_read_from_json_in_every_form_it_is_kept_in(tmp_path: Path, text: str) -> None:
    path = tmp_path / "chat.json"
    path.write_text(text, encoding="utf-8")
    assert read_messages(path) == CHAT


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"messages": 3}', '[{"content": "hi"}]', "not json"])
def test_a_file_that_holds_no_chat_is_explained(tmp_path: Path, text: str) -> None:
    path = tmp_path / "chat.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="A chat is a list of messages such as"):
        read_messages(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_messages(tmp_path / "none.json")


def test_the_prompt_is_the_next_message_where_the_history_waits_for_no_answer() -> None:
    assert conversation("ho", None, []) == [{"role": "user", "content": "ho"}]
    assert conversation("ho", "Be brief.", CHAT[1:3]) == [*CHAT[:3], {"role": "user", "content": "ho"}]
    assert conversation("ho", None, CHAT) == CHAT
    with pytest.raises(DataError, match="Drop one"):
        conversation("ho", "Be kind.", CHAT)
