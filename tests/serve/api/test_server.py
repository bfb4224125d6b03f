"""The door: addresses that need a key, where a key comes from, and the names that requests may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.serve.api.server import KEY_VARIABLE, is_own, open_door, read_key
from bitnet_train.serve.settings import ServeConfig

KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *(("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.8.8", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.evil.example", False), ("", False)),
    ],
)
def test_only_addresses_of_this_machine_alone_need_no_key(host: str, own: bool) -> None:
    assert is_own(host) is own


def test_the_key_of_the_environment_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert read_key(ServeConfig()) == KEY
    assert KEY_VARIABLE not in os.environ
    assert read_key(ServeConfig()) is None


def test_a_key_file_goes_before_the_environment_and_its_first_line_is_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "another")
    (tmp_path / "key").write_text(f"{KEY}\nnote\n")
    assert read_key(ServeConfig(key_file=str(tmp_path / "key"))) == KEY


@pytest.mark.parametrize("content", ["", "\n", "two words\n", "k\u00e4y\n", "\x00\x01\n"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(content: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="printable ASCII without spaces") as caught:
        read_key(ServeConfig(key_file=str(tmp_path / "key")))
    assert "two words" not in str(caught.value)


def test_a_door_to_others_answers_under_its_names_and_never_shows_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    door = open_door(ServeConfig(host="0.0.0.0", port=0, hosts=("box.example",)))
    with door.listener:
        assert {"127.0.0.1", "localhost", "box.example", "0.0.0.0"} <= set(door.hosts)
        assert door.address.startswith("http://127.0.0.1:")
        assert KEY not in repr(door)
