"""Pieces of text as they come: what is written by a callback in a thread of its own, read as an iterator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator


class _ReaderLeft(Exception):
    """Ends a computation whose stream nobody reads any more."""


def pieces_of(write: Callable[[Callable[[str], None]], object]) -> Iterator[str]:
    """Yield the pieces that `write(receive)` hands to `receive`; it runs in a thread, from the first piece on.

    What it raises is raised here. Ending the iteration early ends it: its next `receive` raises.
    """
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    ended = threading.Event()

    def receive(piece: str) -> None:
        if ended.is_set():
            raise _ReaderLeft
        pieces.put(piece)

    writer = threading.Thread(target=_write, args=(write, receive, pieces.put), name="bitnet-train stream", daemon=True)
    writer.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        ended.set()
        writer.join()


def _write(
    write: Callable[[Callable[[str], None]], object],
    receive: Callable[[str], None],
    put: Callable[[BaseException | None], None],
) -> None:
    try:
        write(receive)
    except BaseException as error:  # handed to the reader, who raises it
        put(error)
    put(None)
