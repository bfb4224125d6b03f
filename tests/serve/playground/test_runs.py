"""Runs on this disk: listed from every root, told with curve, facts and configuration, and no place of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.run.directory import RunDirectory
from bitnet_train.serve.playground import runs as runs_module
from bitnet_train.serve.playground.clean import Names
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.runs import Runs, curve, run_id
from bitnet_train.verbs.playground import house


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of runs with one that was trained, and one that is none."""
    directory = RunDirectory(tmp_path / "runs" / "quickstart" / "one")
    directory.create(to_yaml(compose("quickstart", [f"run.dir={directory.root}"]).config))
    rows = [{"step": step, "loss": 9.0 - step} for step in (1, 2)] + [{"step": 2, "val_perplexity": 30.0}]
    (directory.root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo')
    (tmp_path / "runs" / "quickstart" / "other").mkdir()
    return tmp_path / "runs"


def runs_of(*roots: Path) -> Runs:
    return Runs(roots, house(roots[0]), Names({str(root): "runs" for root in roots}))


def test_a_run_is_listed_by_its_name(root: Path) -> None:
    (found,) = runs_of(root).listed()
    assert (found["name"], found["recipe"], found["status"]) == ("quickstart/one", "quickstart", "stopped")
    assert found["id"] == run_id(root / "quickstart" / "one")


def test_a_run_below_two_roots_is_one(root: Path) -> None:
    assert len(runs_of(root / "quickstart", root).listed()) == 1


def test_a_run_is_told_with_curve_facts_and_configuration(root: Path) -> None:
    (root / "quickstart" / "one" / "facts" / "run.json").write_text(json.dumps({"passed": True, "run_dir": str(root)}))
    told = runs_of(root).told(run_id(root / "quickstart" / "one"))
    assert told["status"] == "done"
    assert told["curve"] == [{"step": 1, "loss": 8.0}, {"step": 2, "loss": 7.0, "val_perplexity": 30.0}]
    assert told["config"]["trainer.max_steps"] == 800
    assert told["facts"]["run"] == {"passed": True, "run_dir": "runs"}
    assert str(root) not in json.dumps(told)


def test_a_run_that_failed_its_proof_has_failed(root: Path) -> None:
    (root / "quickstart" / "one" / "facts" / "run.json").write_text('{"passed": false}')
    assert runs_of(root).listed()[0]["status"] == "failed"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 99, b"recipe: [", b"\0"])
def test_a_run_whose_files_are_damaged_is_still_listed(root: Path, content: bytes) -> None:
    for name in ("config.yaml", "metrics.jsonl", "facts/run.json"):
        (root / "quickstart" / "one" / name).write_bytes(content)
    told = runs_of(root).told(run_id(root / "quickstart" / "one"))
    assert (told["curve"], told["facts"], told["config"]) == ([], {}, {})


def test_secrets_of_a_configuration_are_not_told(root: Path) -> None:
    secret = "sk-0123456789abcdef0123456789abcdef"
    directory = RunDirectory(root / "quickstart" / "two")
    directory.create(to_yaml(compose("quickstart", [f"logger.project={secret}"]).config))
    assert secret not in json.dumps(runs_of(root).told(run_id(directory.root)))


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "MOST_POINTS", 10)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(101)))
    steps = [point["step"] for point in curve(path)]
    assert len(steps) <= 10
    assert steps[-1] == 100


def test_an_unknown_run_is_not_found(root: Path) -> None:
    with pytest.raises(Refused):
        runs_of(root).told("../../etc")
