"""A progress bar that shows itself only when the work turns out to be long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

PATIENCE_S = 2.0  # a bar that flashes by is noise


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`; once two seconds have passed, show a bar on stderr (nothing where stderr is no terminal).

    The bar disappears at the end, also when the consumer stops early. `total` None means unknown: a pulse.
    """
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
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
