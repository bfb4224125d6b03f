from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers.panels import panel
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracker import TrackedRun
from bitnet_train.train.trackers.tracking import TRACKERS, JsonlLogger, _rewound, build_loggers, require_package
from tests.fixtures.tiny_run import run, tiny_module

SECRET = "hf_plantedSecret0123456789abcdef"


def test_each_row_is_on_disk_when_logging_returns(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "run" / "metrics.jsonl")
    logger.log_metrics({"loss": 1.5, "bad": float("nan")}, 3)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 3, "loss": 1.5, "bad": null}\n'
    logger.log_metrics({"loss": 1.0}, 4)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "csv", "tensorboard"])
def test_a_run_with_a_tracker_keeps_its_own_file_too(tmp_path: Path, kind: str) -> None:
    loggers = build_loggers(kind, TrackedRun(tmp_path, "a run"), {"hf_token": SECRET, "lr": 0.1})
    run(tmp_path, tiny_module(steps=2), loggers=loggers, validate_every_steps=0)
    for logger in loggers:
        logger.finalize("success")
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [1, 2]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and kind in path.parts]
    assert (kind == "none") == (not files)
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_csv_holds_the_same_losses(tmp_path: Path) -> None:
    run(
        tmp_path,
        tiny_module(steps=3),
        loggers=build_loggers("csv", TrackedRun(tmp_path, "a run"), {}),
        validate_every_steps=0,
    )
    rows = list(csv.DictReader((tmp_path / "csv/version_0/metrics.csv").open()))
    own = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in own]
    assert [int(row["step"]) for row in rows] == [1, 2, 3]


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'bitnet-train\[tensorboard\]'"):
        require_package("surely_not_installed", "tensorboard", "pip install 'bitnet-train[tensorboard]'")


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`logger\.kind=tensorbord`.*Did you mean `tensorboard`"):
        build_loggers("tensorbord", TrackedRun(tmp_path, "a run"), {})


def _losses(run_dir: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return [(each.step, each.value) for each in events.Scalars("train/loss")]


def _told(run_dir: Path, *lines: tuple[int, float], **of_run: int) -> None:
    run = TrackedRun(run_dir, "a run", **of_run)
    (logger,) = build_loggers("tensorboard", run, {}, reached=of_run.get("rewound_to", 0), say=_say_nothing)
    for step, loss in lines:
        logger.log_metrics({"loss": loss}, step)
    logger.finalize("success")


def _say_nothing(text: str) -> None:
    raise AssertionError(text)


def test_a_run_that_goes_back_to_an_earlier_step_shows_the_way_that_it_took_then(tmp_path: Path) -> None:
    _told(tmp_path, (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0))
    _told(tmp_path, (3, 30.0), (4, 40.0), (5, 50.0), rewound_to=2)
    assert _losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_steps_that_are_made_again_after_a_kill_are_not_told_again(tmp_path: Path) -> None:
    _told(tmp_path, (1, 1.0), (2, 2.0))
    _told(tmp_path, (2, 2.0), (3, 3.0))
    assert _losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_tracker_that_is_chosen_after_training_is_told_all_of_it(tmp_path: Path) -> None:
    own = JsonlLogger(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        own.log_metrics({"loss": float(step)}, step)
    run = TrackedRun(tmp_path, "a run")
    (logger,) = build_loggers("tensorboard", run, {}, reached=3, is_over=True, say=_say_nothing)
    logger.finalize("success")
    assert _losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_where_a_tracker_cannot_forget_a_run_that_goes_back_is_another_run(tmp_path: Path) -> None:
    notes: list[str] = []
    told = Told(tmp_path, "wandb")
    told.keep()
    told.note({"loss": 1.0}, 9)
    first, kind, told = told.id, TRACKERS["wandb"], Told(tmp_path, "wandb")
    assert kind is not None
    run = _rewound(TrackedRun(tmp_path, "a run", rewound_to=4), told, kind, notes.append)
    assert (run.name, run.rewound_to, told.last_step) == ("a run again from step 4", None, 0)
    assert told.id != first
    assert notes == ["the run goes back to step 4, so it is tracked as another run from there."]
    again = _rewound(TrackedRun(tmp_path, "a run", rewound_to=0), Told(tmp_path, "wandb"), kind, notes.append)
    assert (again.name, len(notes)) == ("a run", 1)


def test_a_tracker_that_knows_no_runs_is_left_alone_after_training(tmp_path: Path) -> None:
    assert build_loggers("csv", TrackedRun(tmp_path, "a run"), {}, is_over=True) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("loss", "train/loss"),
        ("kl", "train/kl"),
        ("val_ce", "val/ce"),
        ("lr", "optim/lr"),
        ("hardness", "quant/hardness"),
        ("tokens_per_s", "speed/tokens_per_s"),
        ("mine/own", "mine/own"),
    ],
)
def test_a_figure_has_a_section(name: str, shown: str) -> None:
    assert panel(name) == shown
