"""The best checkpoint by the held-out figure, and the end of a run that no longer improves it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.checkpoint_manifest import RUN_ID
from bitnet_train.train.loop.held_out import HeldOutWatch, find_best
from bitnet_train.train.loop.settings import TrainerConfig
from bitnet_train.train.loop.signals import Interrupted
from tests.fixtures.tiny_run import STEPS, STILL, DieAt, Rows, run, tiny_module

ROUGH = 0.3  # a learning rate at which the held-out figure goes up and down
SETTINGS: dict[str, Any] = {"keep_best": True, "keep_last": 1, "save_every_steps": 2, "validate_every_steps": 2}


def figures(run_dir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    return {line["step"]: line["val_ce"] for line in lines if "val_ce" in line}


def pointer(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "checkpoints" / "best.json").read_text())


def kept(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir() if path.name != RUN_ID)


def silent(text: str) -> None:
    raise AssertionError(text)


class SignalInValidation(Rows):
    """Send this process a signal before its `number`-th validation."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def val_dataloader(self):
        rows = super().val_dataloader()
        return _Signalling(rows, self) if self.number else rows


class _Signalling:
    def __init__(self, rows: list[Any], data: SignalInValidation) -> None:
        self.rows, self.data = rows, data

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):
        self.data.number -= 1
        if self.data.number == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return iter(self.rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole")
    run(run_dir, tiny_module(lr=ROUGH), **SETTINGS)
    return run_dir


@pytest.mark.slow
def test_the_best_checkpoint_outlives_those_that_come_after_it(whole: Path) -> None:
    by_step = figures(whole)
    best = min(by_step, key=lambda step: by_step[step])
    assert best != STEPS, "the last step is kept anyway: this run would prove nothing"
    assert kept(whole) == ["best.json", f"step-{best:06d}", f"step-{STEPS:06d}"]
    assert (pointer(whole)["step"], pointer(whole)["val_ce"]) == (best, by_step[best])
    found = find_best(whole / "checkpoints", silent)
    assert found is not None
    assert (found[0].name, found[1]) == (f"step-{best:06d}", pointer(whole))


@pytest.mark.slow
def test_a_best_step_between_two_saves_is_saved(tmp_path: Path) -> None:
    result = run(tmp_path, tiny_module(lr=STILL), **{**SETTINGS, "validate_every_steps": 3, "save_every_steps": 5})
    assert kept(tmp_path) == ["best.json", "step-000003", f"step-{STEPS:06d}"]
    assert (result.best_step, result.best_val_ce) == (3, figures(tmp_path)[3])


@pytest.mark.slow
def test_without_keep_best_nothing_more_is_kept(tmp_path: Path) -> None:
    run(tmp_path, tiny_module(lr=STILL), **{**SETTINGS, "keep_best": False})
    assert kept(tmp_path) == [f"step-{STEPS:06d}"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 4, 9, STEPS - 1])
def test_a_run_cut_at_any_step_finds_the_same_best(whole: Path, tmp_path: Path, step: int) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, tiny_module(lr=ROUGH), callbacks=[DieAt(step, signal.SIGTERM)], **SETTINGS)
    run(tmp_path, tiny_module(lr=ROUGH), resume="auto", **SETTINGS)
    assert (pointer(tmp_path), kept(tmp_path), figures(tmp_path)) == (pointer(whole), kept(whole), figures(whole))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3, STEPS // 2])
def test_a_validation_that_was_cut_short_is_made_up_for(whole: Path, tmp_path: Path, number: int) -> None:
    """Also the last one, after which there is no step to make; the checkpoint of its step is there already."""
    with pytest.raises(Interrupted):
        run(tmp_path, tiny_module(lr=ROUGH), data=SignalInValidation(number), **SETTINGS)
    assert not (tmp_path / "metrics.jsonl").exists() or 2 * number not in figures(tmp_path)
    run(tmp_path, tiny_module(lr=ROUGH), data=SignalInValidation(0), resume="auto", **SETTINGS)
    assert (pointer(tmp_path), kept(tmp_path), figures(tmp_path)) == (pointer(whole), kept(whole), figures(whole))


@pytest.mark.slow
def test_a_run_stops_when_validations_no_longer_improve(tmp_path: Path) -> None:
    given = {**SETTINGS, "keep_best": False, "patience": 2}
    result = run(tmp_path, tiny_module(lr=STILL), **given)
    assert (result.steps, result.is_stopped_early, result.best_step) == (6, True, 2)
    assert kept(tmp_path) == ["step-000006"]
    again = run(tmp_path, tiny_module(lr=STILL), resume="auto", **given)
    assert (again.steps, again.is_stopped_early) == (6, True)
    assert list(figures(tmp_path)) == [2, 4, 6]
    longer = run(tmp_path, tiny_module(lr=STILL), resume="auto", **{**given, "patience": 4})
    assert (longer.steps, longer.is_stopped_early) == (10, True)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 5])
def test_patience_counts_over_a_resume(tmp_path: Path, step: int) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, tiny_module(lr=STILL), callbacks=[DieAt(step, signal.SIGTERM)], **SETTINGS, patience=2)
    result = run(tmp_path, tiny_module(lr=STILL), resume="auto", **SETTINGS, patience=2)
    assert (result.steps, result.best_step) == (6, 2)


@pytest.mark.slow
def test_patience_that_is_never_lost_changes_nothing(whole: Path, tmp_path: Path) -> None:
    result = run(tmp_path, tiny_module(lr=ROUGH), **SETTINGS, patience=STEPS)
    assert (result.steps, result.is_stopped_early, pointer(tmp_path)) == (STEPS, False, pointer(whole))


@pytest.mark.slow
def test_a_checkpoint_that_lies_elsewhere_does_not_bring_its_best_along(whole: Path, tmp_path: Path) -> None:
    there, module = pointer(whole), tiny_module(steps=STEPS + 2, lr=STILL)
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(whole / "checkpoints" / RUN_ID, tmp_path / "checkpoints")
    with pytest.warns(UserWarning, match="max_steps"):
        run(tmp_path, module, resume=str(whole / "checkpoints" / f"step-{STEPS:06d}"), **SETTINGS)
    assert pointer(tmp_path)["step"] == STEPS, "the best of what lies in this directory"
    assert kept(tmp_path) == ["best.json", f"step-{STEPS:06d}", f"step-{STEPS + 2:06d}"]
    assert pointer(whole) == there


@pytest.mark.slow
def test_a_run_that_goes_back_points_to_the_best_of_where_it_goes_on_from(tmp_path: Path) -> None:
    run(tmp_path, tiny_module(steps=4, lr=STILL), **SETTINGS)
    pointed = tmp_path / "checkpoints" / "best.json"
    for left in ('{"step": 400}', "{", None):
        pointed.unlink()
        if left is not None:
            pointed.write_text(left)
        watch = HeldOutWatch(keep_best=True, best=1.0, best_step=2)
        assert watch.take_up_best(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-000002"
        assert (pointer(tmp_path)["step"], pointer(tmp_path)["val_ce"]) == (2, 1.0)
    watch = HeldOutWatch(keep_best=True, best=1.0, best_step=3)
    assert watch.take_up_best(tmp_path / "checkpoints") is None
    assert (watch.best_step, pointed.exists()) == (None, False)


@pytest.mark.slow
def test_a_damaged_best_is_said_and_not_taken(tmp_path: Path) -> None:
    run(tmp_path, tiny_module(lr=STILL), **SETTINGS)
    state = tmp_path / "checkpoints" / "step-000002" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    said: list[str] = []
    assert find_best(tmp_path / "checkpoints", said.append) is None
    assert "bytes instead of" in said[0]
    (tmp_path / "checkpoints" / "best.json").unlink()
    assert find_best(tmp_path / "checkpoints", said.append) is None
    assert "no validation has named" in said[1]


@pytest.mark.parametrize("options", [{"validate_every_steps": 0}, {"data": Rows(validation=0)}])
def test_a_figure_that_there_will_never_be_is_refused_before_the_first_step(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ConfigError, match="go by the held-out rows"):
        run(tmp_path, tiny_module(), **{**SETTINGS, **options})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_patience_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.patience=0`"):
        TrainerConfig(max_steps=1, patience=0)


def test_a_checkpoint_of_before_leaves_the_watch_as_it_is() -> None:
    watch = HeldOutWatch(keep_best=True)
    watch.take(None)
    assert watch.observe(3, 1.5)
    assert not watch.observe(6, 1.5)
    other = HeldOutWatch(patience=1)
    other.take(watch.state())
    assert (other.best, other.best_step, other.is_out_of_patience) == (1.5, 3, True)
    assert torch.isfinite(torch.tensor(other.best))
