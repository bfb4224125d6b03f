"""What begins with a slash."""

from __future__ import annotations

import pytest

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.commands import COMMANDS, Asked, help_lines, message_of, read_command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_read_by_its_name_and_its_other_names(name: str) -> None:
    row = COMMANDS[name]
    words = "a b" if row.argument else ""
    for called in (name, *row.also, name.upper()):
        assert read_command(f"  /{called}  {words} ") == Asked(name, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_help(name: str) -> None:
    assert any(line.startswith(f"{COMMANDS[name].usage}  ") for line in help_lines())


@pytest.mark.parametrize(("typed", "near"), [("/hlep", "/help"), ("/regen", "/regenerate"), ("/systems x", "/system")])
def test_an_unknown_command_names_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(DataError, match=rf"There is no command `/\w+`. Did you mean `{near}`\?"):
        read_command(typed)


@pytest.mark.parametrize("typed", ["/", "/ system x", "/qqqqqq", "/\x1b[2J"])
def test_what_is_no_command_is_told_without_its_control_characters(typed: str) -> None:
    with pytest.raises(DataError, match="There is no command") as told:
        read_command(typed)
    assert "\x1b" not in str(told.value)


def test_words_after_a_command_that_takes_none_are_refused() -> None:
    with pytest.raises(DataError, match="`/reset` takes no words, and `now` follows it"):
        read_command("/reset now")


@pytest.mark.parametrize(
    ("typed", "sent"), [("hi", "hi"), ("//etc/hosts", "/etc/hosts"), ('"""/exit"""', '"""/exit"""'), ("1 / 2", "1 / 2")]
)
def test_messages_are_no_commands(typed: str, sent: str) -> None:
    assert read_command(typed) is None
    assert message_of(typed) == sent


def test_a_command_keeps_the_lines_of_its_words() -> None:
    assert read_command('/system """Be\nbrief."""') == Asked("system", '"""Be\nbrief."""')
    assert read_command("/system\nBe brief.") == Asked("system", "Be brief.")
