"""Messages from a pipe or a file: a line each, but for a backslash at the end and blocks of three quotes.

Bytes are read, never more of a line than a message may have. What cannot be sent (bytes that are no UTF-8, a line too
long) is told once, with the number of its line, and the whole message that it is part of is left out: the lines after
it in the same block are no messages of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.typed import BLOCK, MOST_CHARACTERS, checked, goes_on, is_open

_TAIL = len(BLOCK) + 2  # bytes of the end of a line too long, which may close a block


@dataclass(frozen=True)
class _Line:
    """One line without its break, and what is wrong with it."""

    text: str
    fault: str = ""


class _Message:
    """A message that grows line by line; of one that cannot be sent no more is kept than its fault."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._fault, self._size = "", 0
        self._is_block = False
        self.is_empty = True

    def take(self, line: _Line, number: int) -> bool:
        """Add a line; True where the message ends with it."""
        was_block, is_first, self.is_empty = self._is_block, self.is_empty, False
        self._is_block = BLOCK not in line.text if was_block else is_first and is_open(line.text)
        continues = not was_block and not self._is_block and goes_on(line.text)
        self._size += len(line.text) + 1
        if line.fault or self._size > MOST_CHARACTERS:
            self._fault = (
                self._fault
                or f"Line {number} {line.fault or f'makes the message longer than {MOST_CHARACTERS:,} characters'}"
            )
        if not self._fault:
            self._lines.append(line.text[:-1] if continues else line.text)
        return not self._is_block and not continues

    def whole(self) -> str:
        """Return the text. Raises DataError with the fault."""
        if self._fault:
            raise DataError(f"{self._fault}. The message was not sent.")
        return checked("\n".join(self._lines))


class PlainReader:
    """Reads messages from bytes; `ask` is called before each, to show that one is waited for."""

    def __init__(
        self, stream: BinaryIO, ask: Callable[[], object] = lambda: None, most_bytes: int = 4 * MOST_CHARACTERS
    ) -> None:
        self._lines = self._read_lines(stream, most_bytes)
        self._ask, self._number = ask, 0

    def read(self) -> str:
        """Return the next message. Raises EOFError at the end, DataError for one that cannot be sent."""
        self._ask()
        message = _Message()
        for line in self._lines:
            if message.take(line, self._number):
                return message.whole()
        if message.is_empty:
            raise EOFError
        return message.whole()

    def _read_lines(self, stream: BinaryIO, most: int) -> Iterator[_Line]:
        while raw := stream.readline(most):
            self._number += 1
            tail, is_long = raw[-_TAIL:], False
            while not tail.endswith(b"\n") and (more := stream.readline(most)):
                tail, is_long = (tail + more)[-_TAIL:], True
            fault = f"has more than {most:,} bytes" if is_long else ""
            yield _decoded(raw + tail if is_long else raw, fault, is_first=self._number == 1)


def _decoded(raw: bytes, fault: str, *, is_first: bool) -> _Line:
    text = raw.decode("utf-8-sig" if is_first else "utf-8", errors="replace").removesuffix("\n").removesuffix("\r")
    if fault:
        return _Line(text, fault)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _Line(text, f"is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}")
    return _Line(text)
