"""What a worker printed last is what its end is explained with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bitnet_train.serve.api.hand import Hand, LoadError, Start, last_words
from bitnet_train.serve.child import Limits


def test_the_end_of_what_was_printed_is_kept_short(tmp_path: Path) -> None:
    assert last_words(tmp_path / "nothing") == ""
    (tmp_path / "log").write_bytes(b"\xff" + b"a" * 5000 + b" at last\n")
    assert last_words(tmp_path / "log").endswith("aa at last")
    assert len(last_words(tmp_path / "log")) <= 2001


def test_a_model_that_is_none_and_a_process_that_breaks_say_why(tmp_path: Path) -> None:
    missing = {"model": {"source": str(tmp_path / "none")}}
    with pytest.raises(LoadError, match="there is no such directory"):
        asyncio.run(Hand.start(Start(missing, Limits(), tmp_path / "log")))
    with pytest.raises(LoadError, match=r"ended while it loaded: it ended with status 1\.\n(.|\n)*no_such"):
        asyncio.run(Hand.start(Start({"model": {"no_such": 1}}, Limits(), tmp_path / "log")))
