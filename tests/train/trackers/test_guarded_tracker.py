"""A tracker that fails or hangs, whenever it does, costs a run nothing but one note."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers import guarded_tracker, wandb_tracker
from bitnet_train.train.trackers.tracking import guarded
from tests.fixtures.tiny_run import run, tiny_module

MOMENTS = ("init", "log_hyperparams", "log_metrics", "save", "finalize")
FOREVER = Event()


class Unwell(Logger):
    """A logger that fails, or never returns, from one call of a kind on."""

    def __init__(self, moment: str, hangs: bool) -> None:
        super().__init__()
        self._moment, self._hangs = moment, hangs
        self._reached("init")

    def _reached(self, moment: str) -> None:
        if moment == self._moment and self._hangs:
            FOREVER.wait()
        if moment == self._moment:
            raise ConnectionError("no route to host, api_key=abc123secret")

    @property
    def name(self) -> str:
        return "unwell"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._reached("log_metrics")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._reached("log_hyperparams")

    def save(self) -> None:
        self._reached("save")

    def finalize(self, status: str) -> None:
        self._reached("finalize")


def be(patience_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set how long a run waits: hardly for what never answers, and, on a loaded machine, long for what does."""
    monkeypatch.setattr(guarded_tracker, "START_PATIENCE_S", patience_s)
    monkeypatch.setattr(guarded_tracker, "FINISH_PATIENCE_S", patience_s)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_tracker_never_ends_or_delays_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, hangs: bool
) -> None:
    be(0.05 if hangs else 3600.0, monkeypatch)
    notes: list[str] = []
    logger = guarded("unwell", lambda: Unwell(moment, hangs), {}, notes.append)
    result = run(tmp_path, tiny_module(steps=3), loggers=[logger], validate_every_steps=0)
    assert result.steps == 3
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [1, 2, 3]
    (note,) = notes
    assert "the tracker unwell" in note
    assert ("is not done" if hangs else "ConnectionError: no route to host") in note
    assert "abc123secret" not in note


def test_calls_that_nobody_answers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    be(0.05, monkeypatch)
    monkeypatch.setattr(guarded_tracker, "PENDING_CALLS", 10)
    notes: list[str] = []
    logger = guarded("unwell", lambda: Unwell("init", True), {}, notes.append)
    for step in range(100):
        logger.log_metrics({"loss": 1.0}, step)
    logger.finalize("success")
    assert len(notes) == 1
    assert "has left 10 calls unanswered" in notes[0]


def test_a_tracker_that_works_gets_every_figure_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(3600.0, monkeypatch)
    notes: list[str] = []
    logger = guarded(
        "csv", lambda: CSVLogger(tmp_path, name="csv"), {"lr": 1, "hf_token": "hf_abcdefgh1"}, notes.append
    )
    for step in range(500):
        logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("success")
    rows = (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()
    assert rows == ["loss,step", *(f"{step}.0,{step}" for step in range(500))]
    assert "[redacted]" in (tmp_path / "csv/version_0/hparams.yaml").read_text()
    assert notes == []


def test_a_run_waits_a_second_at_most_before_its_first_step() -> None:
    assert guarded_tracker.START_PATIENCE_S <= 1.0
    assert wandb_tracker.PROBE_S <= 1.0


def test_a_setting_that_cannot_work_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    be(3600.0, monkeypatch)

    def make() -> Logger:
        raise ConfigError("`logger.custom` could not be built")

    with pytest.raises(ConfigError, match="could not be built"):
        guarded("custom", make, {}, print)
