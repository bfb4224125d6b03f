"""THE table of commands: what begins with a slash. Help, completion, suggestions and the tests run over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.shown import in_line
from bitnet_train.serve.chat.typed import is_block
from bitnet_train.settings import did_you_mean


@dataclass(frozen=True)
class Command:
    """One row: the name, what may follow it ("" for nothing), what it does, and other names for it."""

    name: str
    argument: str
    summary: str
    also: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.argument}".rstrip()


@dataclass(frozen=True)
class Asked:
    """A command that was typed, by its own name, and the words after it."""

    name: str
    argument: str


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        command.name: command
        for command in (
            Command("help", "", "show this", ("?",)),
            Command("system", "[TEXT]", 'set the system message, or show it; /system "" takes it away'),
            Command("params", "[NAME=VALUE ...]", "show or set how answers are written", ("set",)),
            Command("undo", "", "forget the last question and its answer"),
            Command("regenerate", "", "answer the last question again", ("retry",)),
            Command("reset", "", "forget all of it but the system message", ("clear",)),
            Command("save", "FILE", "write the conversation, as JSON that `generate.messages` reads"),
            Command("load", "FILE", "go on with a conversation that was saved"),
            Command("exit", "", "leave; so does Ctrl-D", ("quit", "bye")),
        )
    }
)
_NAMES = {name: command for command in COMMANDS.values() for name in (command.name, *command.also)}


def read_command(text: str) -> Asked | None:
    """Return the command that was typed; None for a message.

    A message that begins with a slash is typed with two, or between three quotes. Raises DataError for a command that
    there is not, or with words that it does not take.
    """
    typed = text.strip()
    if is_block(text) or not typed.startswith("/") or typed.startswith("//"):
        return None
    word = "" if typed[1:2].isspace() else typed[1:].partition("\n")[0].partition(" ")[0]
    argument = typed[1 + len(word) :]
    command = _NAMES.get(word.lower())
    if command is None:
        near = did_you_mean(word.lower(), _NAMES).replace("`", "`/", 1)
        raise DataError(
            f"There is no command `/{in_line(word, 60)}`.{near} /help lists them. A message that begins with a slash "
            "is typed with two."
        )
    if argument.strip() and not command.argument:
        raise DataError(f"`/{command.name}` takes no words, and `{in_line(argument.strip(), 60)}` follows it.")
    return Asked(command.name, argument.strip())


def message_of(text: str) -> str:
    """Return a message as it is sent: the first of two slashes is left out."""
    return text.replace("//", "/", 1) if text.lstrip().startswith("//") else text


def help_lines() -> list[str]:
    """Return the table for people, and how several lines are typed."""
    width = max(len(command.usage) for command in COMMANDS.values())
    rows = [f"{command.usage:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return [
        *rows,
        'Alt-Enter, a backslash at the end, or """ ... """ make a message of several lines; Ctrl-C stops an answer.',
    ]
