"""Every verb that writes in a run has it for itself; new runs have folders of their own; leftovers go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.errors import DataError, DiskError, RunInUseError
from bitnet_train.process import this_process
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.hold import holding, placed
from bitnet_train.run.lock import LOCK_FILE, locked
from bitnet_train.verbs import RECIPE, SOURCE, VERBS
from tests.fixtures.small_runs import small

STAGES = [verb for verb in VERBS.values() if verb.is_stage]
NO_PROCESS = 2**22 + 1  # no process has such an id


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a run that has not been trained."""
    root = tmp_path / "run"
    RunDirectory(root).create(to_yaml(compose("quickstart", small(root)).config))
    return root


def words(verb: str, root: Path) -> list[str]:
    return [verb, "model.source=tiny", f"run.dir={root}"] if VERBS[verb].word == SOURCE else [verb, str(root)]


@pytest.mark.parametrize("verb", [verb.name for verb in STAGES if verb.writes])
def test_a_verb_that_writes_is_refused_in_a_run_that_another_process_writes_in(
    verb: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {**asdict(this_process()), "what": "bitnet-train train", "since": "2026-11-29 18:20:42"}
    (run_dir / LOCK_FILE).write_text(json.dumps(said))
    before = sorted(run_dir.rglob("*"))
    assert main(words(verb, run_dir)) == 1
    assert (
        f"RunInUseError: {run_dir} is in use: `bitnet-train train`, process {os.getpid()} " in capsys.readouterr().err
    )
    assert sorted(run_dir.rglob("*")) == before


def test_a_verb_that_only_reads_and_a_dry_run_ask_for_no_lock(run_dir: Path) -> None:
    config = changed(Config(), {"run.dir": str(run_dir)})
    assert [verb.name for verb in STAGES if not verb.writes] == ["generate", "chat"]
    with locked(run_dir, "bitnet-train train"):
        with holding(config, "generate", writes=False) as held:
            assert held == config
        with holding(changed(config, {"dry_run": True}), "train", is_new=True):
            pass
        with pytest.raises(RunInUseError), holding(config, "train", is_new=True):
            pass


def test_runs_of_one_second_and_of_a_clock_that_was_set_back_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form, *given: "2026-11-29_18-20-42")
    config = changed(Config(), {"run.root": str(tmp_path / "runs"), "recipe": "mine"})
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "2026-11-29_18-20-42-2").write_text("not a folder")
    roots = [Path(placed(config)[0].run.dir) for _ in range(3)]
    assert [root.name for root in roots] == [f"2026-11-29_18-20-42{number}" for number in ("", "-3", "-4")]
    assert all(root.is_dir() for root in roots)


def test_a_new_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    config = changed(Config(), {"run.root": str(tmp_path / "runs"), "recipe": "mine"})
    for asked in (config, changed(config, {"run.name": "named"}), changed(config, {"run.dir": str(tmp_path / "a/b")})):
        with suppress(DataError), holding(asked, "train", is_new=True) as held:
            assert (Path(held.run.dir) / LOCK_FILE).is_file()
            raise DataError("nothing to learn from")
    assert list(tmp_path.iterdir()) == []
    with holding(config, "train", is_new=True) as held:
        (Path(held.run.dir) / "config.yaml").write_text("")
    assert [path.name for path in Path(held.run.dir).iterdir()] == ["config.yaml"]


def test_what_killed_processes_left_goes_at_the_next_start_of_any_verb(run_dir: Path) -> None:
    for name in ("artefact", "merged", "exports/gguf", "checkpoints/step-000004"):
        for host in (platform.node(), "a-container-of-before"):
            left = run_dir / Path(name).parent / f".{Path(name).name}.partial-{host}-{NO_PROCESS}.0"
            left.mkdir(parents=True)
            (left / "weights").write_text("half")
    (run_dir / "facts" / f".merge.json.partial-{platform.node()}-{NO_PROCESS}").write_text("{")
    previous = run_dir / f".merged.previous-{platform.node()}-{NO_PROCESS}.0"
    previous.mkdir()
    (previous / "model").write_text("whole")
    with holding(changed(Config(), {"run.dir": str(run_dir)}), "validate"):
        assert (run_dir / "merged" / "model").read_text() == "whole"
        assert [path for path in run_dir.rglob(".*") if path.name != LOCK_FILE] == []


ALL_OF_THEM = """
import sys; from bitnet_train.__main__ import main
print([main([verb, sys.argv[1]]) for verb in sys.argv[2:]], "torch" in sys.modules)
"""


@pytest.mark.parametrize("closed", ["", "facts"])
def test_a_run_that_may_not_be_written_is_refused_before_work_starts(
    closed: str, run_dir: Path, bound: list[str]
) -> None:
    verbs = ["train", "merge", "export", "validate", "evaluate"]
    (run_dir / closed).chmod(0o555)
    command = [*bound, sys.executable, "-c", ALL_OF_THEM, str(run_dir), *verbs]
    done = subprocess.run(command, capture_output=True, text=True)
    (run_dir / closed).chmod(0o755)
    assert done.stdout == "[1, 1, 1, 1, 1] False\n"
    said = f"DiskError: {run_dir / closed} cannot be written: Permission denied. Make it writable"
    assert done.stderr.count(said) == len(verbs)


@pytest.mark.parametrize("name", ["checkpoints", "cache", "metrics.jsonl"])
def test_training_alone_asks_for_what_it_alone_writes(
    name: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, *given, **named: Path(path) != run_dir / name)  # as for another user
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    (run_dir / name).mkdir() if "." not in name else (run_dir / name).touch()
    config = changed(Config(), {"run.dir": str(run_dir)})
    with pytest.raises(DiskError, match=rf"{name} cannot be written"), holding(config, "train", is_new=True):
        pass
    with holding(config, "merge"):
        pass


def test_a_model_that_lies_in_no_run_is_locked_by_nobody(tmp_path: Path) -> None:
    with holding(Config(), "export") as held:
        assert held == Config()


def test_every_verb_of_a_recipe_makes_a_run() -> None:
    assert {verb.name for verb in STAGES if verb.word in (RECIPE, SOURCE)} >= {"run", "train", "import", "reconstruct"}
