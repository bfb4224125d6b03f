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


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for _ in progress.track(range(4), "counting", total=4):
        clock[0] += 20.0
    for _ in progress.track(range(2), "pulsing"):
        clock[0] += 31.0
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = ["counting: 2 of 4, 0:40 left", "counting: 4 of 4, 0:00 left", "pulsing: 1", "pulsing: 2"]
    assert printed.err.splitlines() == lines


@pytest.mark.parametrize("colour", ["0", "1"])
def test_quiet_shows_neither(colour: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if colour == "1":
        monkeypatch.setenv("FORCE_COLOR", colour)
    for name in ("LINE_EVERY_S", "PATIENCE_S"):
        monkeypatch.setattr(progress, name, 0.0)
    progress.be_quiet(True)
    try:
        for _ in progress.track(range(3), "counting", total=3):
            time.sleep(0.02)
    finally:
        progress.be_quiet(False)
    assert capsys.readouterr() == ("", "")


def test_a_consumer_may_stop_early() -> None:
    items = progress.track(range(5), "counting")
    assert next(iter(items)) == 0
    items.close()
