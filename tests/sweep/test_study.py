"""The study that workers share: who gets which trial, also after a worker was killed at the worst moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.process import Process, this_process
from bitnet_train.sweep import study as study_file
from bitnet_train.sweep.ranges import read_range
from bitnet_train.sweep.settings import SweepConfig
from bitnet_train.sweep.study import JOURNAL, SharedStudy, most_trials

RATE = read_range("lr", "float", "1e-4..1e-2")
ROWS = read_range("rows", "int", "1..3")
DEAD = Process(this_process().host, 2**22 + 1, "0")  # an id that no process has
ELSEWHERE = Process("another-machine", 1, "0")


def opened(folder: Path, *, ranges: Sequence = (RATE, ROWS), **settings: object) -> SharedStudy:
    return SharedStudy(folder, ranges, replace(SweepConfig(trials=3), **settings))


def values(study: SharedStudy) -> list[dict]:
    return [dict(trial.params) for trial in study.trials()]


def test_a_worker_gets_trials_until_there_are_enough(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for _ in range(3):
        taken = study.take()
        assert taken is not None
        study.tell(taken, taken.params["lr"])
    assert study.take() is None
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE"] * 3
    assert opened(tmp_path, trials=4).take() is not None, "`sweep.trials` may be raised"


def test_the_same_seed_gives_the_same_trials_after_a_restart_and_another_seed_others(tmp_path: Path) -> None:
    found = []
    for name, seed, is_restarted in (("a", 0, False), ("b", 0, True), ("c", 1, False)):
        (tmp_path / name).mkdir()
        study = opened(tmp_path / name, seed=seed)
        for _ in range(3):
            study = opened(tmp_path / name, seed=seed) if is_restarted else study
            taken = study.take()
            assert taken is not None
            study.tell(taken, 1.0)
        found.append(values(study))
    assert found[0] == found[1] != found[2]
    assert len({row["lr"] for row in found[0]}) == 3


def test_two_workers_get_different_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tmp_path).take()
    # a worker that lives: the process that started this one
    parent = Process(this_process().host, int(Path("/proc/self/stat").read_text().split()[3]))
    monkeypatch.setattr(study_file, "this_process", lambda: parent)
    other = opened(tmp_path)
    second = other.take()
    assert first is not None
    assert second is not None
    assert [first.number, second.number] == [0, 1]


def test_what_a_dead_worker_left_is_taken_up_with_its_values(tmp_path: Path) -> None:
    left = opened(tmp_path).take()
    assert left is not None
    left.set_user_attr("worker", asdict(DEAD))
    taken = opened(tmp_path).take()
    assert taken is not None
    assert (taken.number, taken.params) == (left.number, left.params)
    assert taken.user_attrs["worker"] == asdict(this_process())


def test_a_worker_that_was_killed_as_it_took_a_trial_leaves_none_half_made(tmp_path: Path) -> None:
    opened(tmp_path).study.ask()  # no value, no worker is written down yet
    taken = opened(tmp_path).take()
    assert taken is not None
    assert (taken.number, set(taken.params)) == (0, {"lr", "rows"})


def test_a_silent_worker_of_another_machine_is_lost_and_its_values_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(tmp_path, trials=1)
    left = study.take()
    assert left is not None
    left.set_user_attr("worker", asdict(ELSEWHERE))
    assert opened(tmp_path, trials=1).take() is None, "it was heard of a moment ago"
    assert not study.is_in_doubt()
    monkeypatch.setattr(study_file, "DOUBT_AFTER_S", -1.0)
    assert study.is_in_doubt(), "there may be something to do in a moment"
    monkeypatch.setattr(study_file, "LOST_AFTER_S", -1.0)
    again = opened(tmp_path, trials=1)
    taken = again.take()
    assert taken is not None
    assert (taken.number, taken.params) == (1, left.params)
    again.tell(taken, 1.0)
    assert len(again.trials()) == 1, "what was lost does not count"


def test_a_grid_is_tried_once_each_whoever_asks(tmp_path: Path) -> None:
    ranges = (ROWS, read_range("weight", "group", "a,b"))
    tried = []
    while (taken := (study := opened(tmp_path, ranges=ranges, sampler="grid", trials=None)).take()) is not None:
        tried.append((taken.params["rows"], taken.params["weight"]))
        study.tell(taken, 1.0)
    assert tried == [(rows, weight) for rows in (1, 2, 3) for weight in "ab"]


def test_a_trial_that_is_worse_than_most_is_pruned(tmp_path: Path) -> None:
    study = opened(tmp_path, trials=6)
    for _ in range(5):
        taken = study.take()
        assert taken is not None
        taken.report(2.0, 10)
        study.tell(taken, 2.0)
    bad = study.take()
    assert bad is not None
    bad.report(3.0, 10)
    assert bad.should_prune()
    study.tell(bad, None, is_pruned=True)
    assert study.trials()[-1].value == 3.0
    (tmp_path / "none").mkdir()
    assert not isinstance(opened(tmp_path / "none", pruner="none").study.pruner, type(study.study.pruner))


def test_a_line_that_was_cut_is_taken_out_and_one_that_is_damaged_is_said(tmp_path: Path) -> None:
    study = opened(tmp_path)
    taken = study.take()
    assert taken is not None
    study.tell(taken, 1.0)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_')
    assert [trial.value for trial in opened(tmp_path).trials()] == [1.0]
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"#\n", *lines[2:]]))
    with pytest.raises(FormatError, match=r"journal\.log cannot be read"):
        opened(tmp_path)


def test_a_grid_that_is_larger_than_it_may_be_is_refused() -> None:
    assert most_trials((RATE,), SweepConfig()) == 20
    assert most_trials((ROWS,), SweepConfig(sampler="grid")) == 3
    with pytest.raises(ConfigError, match=r"`sweep\.trials=2`, and the grid has 3 points"):
        most_trials((ROWS,), SweepConfig(sampler="grid", trials=2))
