"""Where a chat is shown: answers on stdout, and what the program itself says, dimmed, beside them.

On a terminal both are one stream. Where stdout is a pipe or a file, it holds the answers alone, and the rest goes to
stderr. With `--quiet` the program says nothing of itself but what went wrong. NO_COLOR (no-color.org) and TERM=dumb
leave the dimming out too. Every text passes `shown`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TextIO

from bitnet_train.serve.chat.shown import shown

_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


@dataclass
class Screen:
    """The two streams, and whether they may be styled."""

    out: TextIO
    err: TextIO
    quiet: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees the answers."""
        return self.out.isatty()

    @property
    def is_styled(self) -> bool:
        """Whether text is dimmed or made bold."""
        return self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int:
        """Columns of the terminal, as they are now."""
        return shutil.get_terminal_size().columns

    def piece(self, text: str) -> None:
        """Show a piece of an answer at once."""
        self.out.write(shown(text))
        self.out.flush()

    def line(self, text: str = "") -> None:
        """End an answer, or show a line of it."""
        self.piece(f"{text}\n")

    def title(self, text: str) -> None:
        """Show whose answer follows."""
        self._write(self.out, text, _BOLD)

    def note(self, text: str) -> None:
        """Say something of the program itself."""
        if not self.quiet:
            self._write(self.out if self.is_terminal else self.err, text, _DIM)

    def fault(self, text: str) -> None:
        """Say what went wrong, to whoever asked for quiet too."""
        self._write(self.out if self.is_terminal else self.err, text, _BOLD)

    def _write(self, stream: TextIO, text: str, style: str) -> None:
        stream.write(f"{style}{shown(text)}{_PLAIN}\n" if self.is_styled else f"{shown(text)}\n")
        stream.flush()
