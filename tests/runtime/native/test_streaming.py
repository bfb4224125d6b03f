from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bitnet_train.runtime.native.streaming import pieces_of


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bitnet-train stream"]


def test_the_pieces_come_in_order_and_nothing_is_written_before_the_first_is_asked_for() -> None:
    begun = []

    def write(receive: Callable[[str], None]) -> None:
        begun.append(True)
        for piece in "abc":
            receive(piece)

    pieces = pieces_of(write)
    assert not begun
    assert list(pieces) == ["a", "b", "c"]
    assert not writers()


def test_leaving_early_ends_the_writing_at_its_next_piece() -> None:
    def write(receive: Callable[[str], None]) -> None:
        while True:
            receive("more")

    pieces = pieces_of(write)
    assert next(pieces) == "more"
    assert len(writers()) == 1
    pieces.close()  # type: ignore[attr-defined]
    assert not writers()


def test_an_error_comes_after_what_was_written_before_it() -> None:
    def write(receive: Callable[[str], None]) -> None:
        receive("whole")
        raise ZeroDivisionError("in the writer")

    pieces = pieces_of(write)
    assert next(pieces) == "whole"
    with pytest.raises(ZeroDivisionError, match="in the writer"):
        next(pieces)
    assert not writers()
