"""What was typed before is kept where that was asked for, and for its owner alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.serve.chat.history import NAME, open_history


def test_a_run_keeps_what_was_typed_in_its_folder_for_its_owner_alone(tmp_path: Path) -> None:
    history = open_history(None, tmp_path, pytest.fail)
    history.append_string("first\nof two lines")
    history.append_string("x" * 10_001)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0
    again = open_history(None, tmp_path, pytest.fail)
    assert list(again.load_history_strings()) == ["first\nof two lines"]


def test_a_file_that_is_named_stands_before_that_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    open_history(str(tmp_path / "mine"), tmp_path / "run", pytest.fail).append_string("hi")
    assert (tmp_path / "mine").is_file()
    assert list((tmp_path / "run").iterdir()) == []


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_history(None, None, pytest.fail).append_string("hi")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes")
    with pytest.raises(ConfigError, match=r"`chat.history=.*notes` cannot be kept: it holds something else"):
        open_history(str(tmp_path / "notes"), None, pytest.fail)
    assert (tmp_path / "notes").read_text() == "my notes"


@pytest.mark.parametrize("place", ["none/such", ".", "/dev/null", "x" * 300])
def test_a_place_that_is_none_is_refused_where_it_was_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        open_history(str(tmp_path / place), None, pytest.fail)


def test_a_run_that_takes_no_file_is_told_and_done_without(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    told: list[str] = []
    open_history(None, tmp_path, told.append).append_string("hi")
    assert len(told) == 1
    assert "not kept for next time" in told[0]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be kept"):
        open_history(str(tmp_path / "pipe"), None, pytest.fail)
