"""A conversation in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bitnet_train.errors import DataError, DiskError
from bitnet_train.runtime.messages import read_messages
from bitnet_train.serve.chat.chat_file import load_chat, save_chat

CHAT = [{"role": "system", "content": "Sei kurz."}, {"role": "user", "content": 'Grüße\x1b[2J "you"\n世界'}]


def test_what_is_saved_is_read_back_here_and_by_generate_messages(tmp_path: Path) -> None:
    path = save_chat(str(tmp_path / "chat.json"), CHAT)
    assert load_chat(str(path)) == CHAT
    assert read_messages(path) == CHAT
    assert "\x1b" not in path.read_text()


def test_a_conversation_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    path = str(tmp_path / "chat.json")
    save_chat(path, CHAT)
    save_chat(path, CHAT[:1])
    assert load_chat(path) == CHAT[:1]
    for name, content in {"notes.txt": "my notes", "config.json": json.dumps({"a": 1})}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match="that is there, and no conversation"):
            save_chat(str(tmp_path / name), CHAT)
        assert (tmp_path / name).read_text() == content


def test_what_is_no_place_for_a_file_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to save yet"):
        save_chat(str(tmp_path / "chat.json"), [])
    with pytest.raises(DataError, match=r"that name holds characters that cannot be seen"):
        save_chat(f"{tmp_path}/a\0b", CHAT)
    with pytest.raises(DataError, match="that is there, and no conversation"):
        save_chat(str(tmp_path), CHAT)
    with pytest.raises(DiskError):
        save_chat(f"{tmp_path}/{'x' * 300}", CHAT)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not json", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[]", "holds no list of messages"),
        (b'[{"role": "user"}]', "has no text as its `content`"),
        (b'[{"role": "user", "content": "\\ud800"}]', "holds what JSON cannot"),
        (b"[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_file_that_holds_something_else_is_an_error_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_chat(str(tmp_path / "bad.json"))


def test_a_file_that_is_not_there_a_device_or_too_large_is_refused_unread(tmp_path: Path) -> None:
    for word in (str(tmp_path / "none.json"), "/dev/zero", str(tmp_path), "x" * 5000):
        with pytest.raises(DataError, match="there is no such file"):
            load_chat(word)
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 65 << 20)
    with pytest.raises(DataError, match="more than 64 MiB are no conversation"):
        load_chat(str(tmp_path / "large.json"))
