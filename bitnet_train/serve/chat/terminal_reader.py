"""Messages from a terminal, by prompt_toolkit: editing, history, completion of commands, several lines.

Enter sends, unless a block of three quotes is open or the line ends with a backslash; Alt-Enter begins a new line.
What is pasted is taken as it is, with its line breaks, up to the length of a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bitnet_train.serve.chat.commands import COMMANDS
from bitnet_train.serve.chat.typed import MOST_CHARACTERS, checked, goes_on, is_open

if TYPE_CHECKING:
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

_PROMPT, _FURTHER = "> ", ". "
_END_OF_PASTE = 16  # characters that hold the mark of its end, of six, where it comes in two pieces


class TerminalReader:
    """Reads messages; `tell` shows a line of the program while a message is being typed."""

    def __init__(self, history: History, tell: Callable[[str], object]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        words = [f"/{name}" for name in COMMANDS]
        self._session: PromptSession[str] = PromptSession(
            input=_input(),
            history=history,
            multiline=True,
            key_bindings=_bindings(tell),
            completer=WordCompleter(words, sentence=True),
            complete_while_typing=False,
            prompt_continuation=_FURTHER,
            enable_open_in_editor=False,
        )

    def read(self) -> str:
        """Return what was typed. Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C, DataError as `checked`."""
        return checked(self._session.prompt(_PROMPT))


def _bindings(tell: Callable[[str], object]) -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        _enter(event.current_buffer)

    @bindings.add("escape", "enter")
    @bindings.add("escape", "c-j")  # as a terminal sends it that was not asked yet: typed while an answer came
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add(Keys.BracketedPaste)
    def _(event: KeyPressEvent) -> None:
        _paste(event, tell)

    return bindings


def _enter(buffer: Any) -> None:
    line = buffer.document.current_line
    at_end = buffer.document.is_cursor_at_the_end
    if is_open(buffer.text):
        buffer.insert_text("\n")
    elif at_end and goes_on(line):
        buffer.delete_before_cursor()
        buffer.insert_text("\n")
    else:
        buffer.validate_and_handle()


def _paste(event: KeyPressEvent, tell: Callable[[str], object]) -> None:
    from prompt_toolkit.application import run_in_terminal

    data = event.data.replace("\r\n", "\n").replace("\r", "\n")
    if len(data) > MOST_CHARACTERS or _was_cut(event.app.input):
        run_in_terminal(lambda: tell(f"More than {MOST_CHARACTERS:,} characters were pasted: left out."))
        return
    event.current_buffer.insert_text(data)


def _input() -> Any:
    """The keyboard of this terminal; of a paste too long it keeps no more than its end.

    prompt_toolkit looks for the end of a paste in all of it with every kilobyte: 10 MB would take a minute. Where its
    parser keeps the paste elsewhere one day, they take that again, and nothing else.
    """
    from prompt_toolkit.input import create_input
    from prompt_toolkit.input.vt100_parser import Vt100Parser

    class Bounded(Vt100Parser):
        """A parser that forgets the beginning of what is too long anyway."""

        was_cut = False

        def feed(self, data: str) -> None:
            pasted = getattr(self, "_paste_buffer", "")
            if len(pasted) > MOST_CHARACTERS:
                self.was_cut, self._paste_buffer = True, pasted[-_END_OF_PASTE:]
            elif self.was_cut and len(pasted) > 1 << 16:
                self._paste_buffer = pasted[-_END_OF_PASTE:]
            super().feed(data)

    keyboard: Any = create_input()
    if hasattr(keyboard, "vt100_parser"):
        keyboard.vt100_parser = Bounded(keyboard.vt100_parser.feed_key_callback)
    return keyboard


def _was_cut(keyboard: Any) -> bool:
    """Whether the paste that just came was cut; asked once."""
    parser = getattr(keyboard, "vt100_parser", None)
    was_cut = bool(getattr(parser, "was_cut", False))
    if was_cut:
        parser.was_cut = False  # type: ignore[union-attr]
    return was_cut
