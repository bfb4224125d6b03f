"""Two answers in columns, redrawn while they come; below, or in a narrow terminal, one after the other.

While they come, the last lines that the terminal has room for are shown; at the end, all of both.
"""

from __future__ import annotations

import shutil
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bitnet_train.serve.chat.parting import MARK, parts_at
from bitnet_train.serve.chat.shown import shown

LEAST_WIDTH = 80  # columns of a terminal that has room for two
_AROUND = 6  # lines of the screen that are not the answers'


class Columns:
    """Both answers, growing, on a terminal."""

    def __init__(self, titles: tuple[str, str], out: TextIO, *, is_styled: bool) -> None:
        self._titles = titles
        self.texts = ["", ""]
        self._is_whole = False
        self._console = Console(file=out, highlight=False, no_color=not is_styled, emoji=False, markup=False)
        self._style = "bold reverse" if is_styled else ""
        self._live = Live(console=self._console, auto_refresh=False, transient=True, get_renderable=self._last_lines)

    def __enter__(self) -> Columns:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._is_whole = True
        self._console.print(self._table(*self.texts))

    def piece(self, side: int, text: str) -> None:
        """Add a piece to one of the answers."""
        self.texts[side] += text
        self._live.refresh()

    def _last_lines(self) -> Any:
        lines = max(1, shutil.get_terminal_size().lines - _AROUND)
        width = max(8, (self._console.width - 3) // 2)
        return self._table(*(_tail(text, lines, width) for text in self.texts))

    def _table(self, first: str, second: str) -> Table:
        table = Table(show_edge=False, pad_edge=False, expand=True, box=None, padding=(0, 2, 0, 0))
        for title in self._titles:
            table.add_column(Text(shown(title), style="bold"), ratio=1, overflow="fold")
        table.add_row(*self._marked(first, second))
        return table

    def _marked(self, first: str, second: str) -> tuple[Text, Text]:
        """Both texts with the mark where they part, once that is certain; the second comes after the first."""
        is_beginning = not self._is_whole and self.texts[0].startswith(self.texts[1])
        at = None if is_beginning or [first, second] != self.texts else parts_at(first, second)
        if at is None:
            return Text(shown(first)), Text(shown(second))
        return self._with_mark(first, at), self._with_mark(second, at)

    def _with_mark(self, text: str, at: int) -> Text:
        word = len(text[at:].split(maxsplit=1)[0]) if text[at:].strip() else 0
        lead = len(text[at:]) - len(text[at:].lstrip())
        before, marked, after = text[: at + lead], text[at + lead : at + lead + word], text[at + lead + word :]
        return Text.assemble(shown(before), (f"{MARK}{shown(marked)}", self._style), shown(after))


def _tail(text: str, lines: int, width: int) -> str:
    """Return the end of a text, about so many lines of a column."""
    kept: list[str] = []
    for line in reversed(text.split("\n")):
        if lines <= 0:
            break
        kept.append(line[-lines * width :])
        lines -= 1 + len(kept[-1]) // width
    return "\n".join(reversed(kept))
