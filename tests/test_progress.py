from __future__ import annotations

import time

import pytest

from bitnet_train import progress


def test_items_come_through_unchanged_and_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(5), "counting", total=5)) == list(range(5))
    assert capsys.readouterr() == ("", "")


def test_long_work_shows_a_bar_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setattr(progress, "PATIENCE_S", 0.02)
    for _ in progress.track(range(4), "counting", total=4):
        time.sleep(0.02)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "counting" in printed.err


def test_a_consumer_may_stop_early() -> None:
    items = progress.track(range(5), "counting")
    assert next(iter(items)) == 0
    items.close()
