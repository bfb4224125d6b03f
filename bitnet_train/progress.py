"""A progress bar that shows itself only when the work turns out to be long; a line now and then without a terminal.

In a notebook it is one output that is drawn over, without widgets: rich would need ipywidgets there, and a line now and
then would become a wall of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

PATIENCE_S = 2.0  # a bar that flashes by is noise
LINE_EVERY_S = 30.0
DRAWN_EVERY_S = 0.2  # in a notebook, where every drawing is a message to the browser

_is_quiet = False


def be_quiet(quiet: bool) -> None:
    """Show nothing from now on in this process, or do so again."""
    global _is_quiet
    _is_quiet = quiet


def open_console(quiet: bool = False, *, stderr: bool = False) -> Console:
    """Return where text for people goes: no number is coloured apart from its unit or its word."""
    from rich.console import Console

    return Console(quiet=quiet, stderr=stderr, highlight=False)


def warn(text: str) -> None:
    """Say on stderr what must not be missed, to whoever asked for quiet too."""
    open_console(stderr=True).print(f"warning: {text}", markup=False, soft_wrap=True)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`; once two seconds have passed, show a bar on stderr, or a line every half minute in a log.

    The bar disappears at the end, also when the consumer stops early. `total` None means unknown: a pulse.
    """
    shown_on = open_console(_is_quiet, stderr=True)
    if shown_on.is_jupyter and not shown_on.quiet:
        return _in_notebook(items, description, total)
    return (_with_bar if shown_on.is_terminal else _with_lines)(items, description, total, shown_on)


class NotebookBar:
    """A bar and a line of text as one output of a notebook cell, drawn over; the text alone where HTML is not shown."""

    def __init__(self, total: int | None) -> None:
        from IPython.display import display

        self._total, self._drawn_s = total, time.monotonic()
        self._output = display(self._drawing(0, ""), raw=True, display_id=True)

    def update(self, done: int, text: str, *, at_once: bool = False) -> None:
        """Show how far the work is; left out where the last drawing is fresh, unless it has to be `at_once`."""
        if self._output is None or not (at_once or time.monotonic() - self._drawn_s >= DRAWN_EVERY_S):
            return
        self._drawn_s = time.monotonic()
        self._output.update(self._drawing(done, text), raw=True)

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._output is not None:
            self._output.update({"text/plain": "", "text/html": ""}, raw=True)

    def _drawing(self, done: int, text: str) -> dict[str, str]:
        value = "" if self._total is None else f' value="{done}" max="{self._total}"'
        html = f'<progress{value} style="width: 16em"></progress> <code>{escape(text)}</code>'
        return {"text/plain": text, "text/html": html}


def _in_notebook(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    bar, started = None, time.monotonic()
    try:
        for count, item in enumerate(items, start=1):
            yield item
            if bar is None and time.monotonic() - started > PATIENCE_S:
                bar = NotebookBar(total)
            if bar is not None:
                bar.update(count, f"{description}: {count}{'' if total is None else f' of {total}'}")
    finally:
        if bar is not None:
            bar.clear()


def _with_bar(items: Iterable[Item], description: str, total: int | None, console: Console) -> Iterator[Item]:
    from rich.progress import Progress

    progress = Progress(console=console, transient=True)
    task = progress.add_task(description, total=total)
    started, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            progress.advance(task)
            if not shown and time.monotonic() - started > PATIENCE_S:
                progress.start()
                shown = True
    finally:
        if shown:
            progress.stop()


def _with_lines(items: Iterable[Item], description: str, total: int | None, console: Console) -> Iterator[Item]:
    started = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            continue
        last = now
        left = "" if total is None else f" of {total}, {_clock((now - started) / count * (total - count))} left"
        console.print(f"{description}: {count}{left}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
