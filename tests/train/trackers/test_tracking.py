from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers.tracking import TRACKERS, JsonlLogger, build_loggers, require_package
from tests.fixtures.tiny_run import run, tiny_module

SECRET = "hf_plantedSecret0123456789abcdef"


def test_each_row_is_on_disk_when_logging_returns(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "run" / "metrics.jsonl")
    logger.log_metrics({"loss": 1.5, "bad": float("nan")}, 3)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 3, "loss": 1.5, "bad": null}\n'
    logger.log_metrics({"loss": 1.0}, 4)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in TRACKERS if kind != "wandb"])
def test_a_run_with_any_tracker_keeps_its_own_file_too(tmp_path: Path, kind: str) -> None:
    loggers = build_loggers(kind, tmp_path, {"hf_token": SECRET, "lr": 0.1})
    run(tmp_path, tiny_module(steps=2), loggers=loggers, validate_every_steps=0)
    for logger in loggers:
        logger.finalize("success")
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [1, 2]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and kind in path.parts]
    assert (kind == "none") == (not files)
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_csv_holds_the_same_losses(tmp_path: Path) -> None:
    run(tmp_path, tiny_module(steps=3), loggers=build_loggers("csv", tmp_path, {}), validate_every_steps=0)
    rows = list(csv.DictReader((tmp_path / "csv/version_0/metrics.csv").open()))
    own = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in own]
    assert [int(row["step"]) for row in rows] == [1, 2, 3]


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'bitnet-train\[tensorboard\]'"):
        require_package("surely_not_installed", "tensorboard", "pip install 'bitnet-train[tensorboard]'")


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`logger\.kind=tensorbord`.*Did you mean `tensorboard`"):
        build_loggers("tensorbord", tmp_path, {})
