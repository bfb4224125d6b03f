"""What a tracker is told of a stage, and by which name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bitnet_train.config import Config
from bitnet_train.config.compose import compose
from bitnet_train.errors import ConfigError
from bitnet_train.run import tracked as door
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import LevelFacts, ValidateFacts
from bitnet_train.run.result import RunFacts
from bitnet_train.run.session import Session
from bitnet_train.run.tracked import check_trackers, keeping_trackers, tell, tracked
from bitnet_train.run.tracked_figures import figures_of
from bitnet_train.train.trackers import tracking
from bitnet_train.train.trackers.tracking import Kind

RESULTS = Path(__file__).parents[2] / "recipes/results"
LEVELS = (LevelFacts("bytes", "", {}, None, True), LevelFacts("layer", "", {}, "x", False))
VALIDATED = ValidateFacts("artefact", "merged", False, LEVELS)


def _config(run_dir: Path, *words: str) -> Config:
    return compose("quickstart", [f"run.dir={run_dir}", "logger=tensorboard", *words]).config


def test_the_result_of_a_recipe_is_told_by_its_figures() -> None:
    result = json.loads((RESULTS / "quickstart.json").read_text())
    facts = RunFacts.from_dict(result)
    told = figures_of(facts)
    assert told["perplexity_ratio"] == facts.perplexity.ratio
    assert told["size_bytes"] == facts.size.folder_bytes
    assert told["decode_tokens_per_s"] == facts.decode_tokens_per_s
    assert told["verdict"] == "passed"


def test_a_verdict_is_told_level_by_level() -> None:
    told = figures_of(VALIDATED)
    assert told == {"verdict": "FAILED", "passed": False, "validate/bytes": True, "validate/layer": False}


def test_a_session_opens_its_trackers_once_and_closes_them_at_its_end(tmp_path: Path) -> None:
    config, directory = _config(tmp_path), RunDirectory(tmp_path)
    session = Session(config)
    with keeping_trackers(session):
        with tracked(config, directory, session) as first:
            first.loggers[0].log_metrics({"loss": 1.0}, 1)
        with tracked(config, directory, session) as second:
            assert second is first
        tell(VALIDATED, config, directory, session)
    assert session.trackers is None
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("summary/passed")] == [(1, 0.0)]


def test_a_stage_of_no_run_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "build_loggers", None)
    tell(VALIDATED, _config(tmp_path), None)


def test_a_run_is_named_by_its_recipe_and_folder_and_tagged_by_what_it_is(tmp_path: Path) -> None:
    run_dir = tmp_path / "2026-11-22_14-05-09"
    run = door._described(_config(run_dir, "model.source=tiny"), RunDirectory(run_dir), None)
    assert (run.name, run.group, run.job_type) == ("quickstart 2026-11-22_14-05-09", "quickstart", "train")
    assert run.tags == ("quickstart", "tiny", "binary", "int8", "none")
    words = ("logger=wandb", "logger.name=mine", "logger.group=all", "logger.tags=[night]")
    chosen = door._described(_config(run_dir, *words), RunDirectory(run_dir), None)
    assert (chosen.name, chosen.group, chosen.tags[-1]) == ("mine", "all", "night")


def test_a_missing_package_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Kind(lambda *_: None, ("surely_not_installed",), "pip install 'bitnet-train[mlflow]'")  # type: ignore
    monkeypatch.setattr(tracking, "TRACKERS", {**tracking.TRACKERS, "mlflow": missing})
    with pytest.raises(ConfigError, match=r"surely_not_installed.*pip install 'bitnet-train\[mlflow\]'"):
        check_trackers(compose("quickstart", ["logger=mlflow"]).config)
