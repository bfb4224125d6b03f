"""A progress bar that shows itself only when the work turns out to be long; a line now and then without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")

PATIENCE_S = 2.0  # a bar that flashes by is noise
LINE_EVERY_S = 30.0

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
    return (_with_bar if shown_on.is_terminal else _with_lines)(items, description, total, shown_on)


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
