"""A whole run as a newcomer sees it: no library's warnings among our own lines, with a tracker that holds all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.run.result import RunFacts
from tests.fixtures.wandb_file import records

SMALL = [
    "trainer.max_steps=3",
    "data.max_documents=12",
    "data.context_tokens=64",
    "data.max_validation_rows=4",
    "evaluate.max_tokens=256",
    "validate.num_prompts=2",
    "validate.new_tokens=2",
    "validate.num_tokens=128",
    "validate.native_tokens=2",
    "validate.all_isas=false",
    "generate.max_new_tokens=4",
    "logger=wandb",
    "logger.mode=offline",
]
WORDS_OF_LIBRARIES = ("warning", "deprecat", "wandb:", "will be removed", "site-packages")


@pytest.mark.slow
def test_a_whole_run_shows_no_librarys_warnings(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONWARN", "WANDB"))}
    environment |= {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "bitnet_train", "run", "quickstart", "run.dir=run", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=290)
    assert done.returncode in (0, 1), done.stderr[-3000:]  # three steps need not pass every level
    assert (tmp_path / "run" / "facts" / "run.json").is_file(), done.stderr[-3000:]
    shown = (done.stdout + done.stderr).splitlines()
    assert [line for line in shown if any(word in line.lower() for word in WORDS_OF_LIBRARIES)] == []
    _check_recording(tmp_path / "run")


def _check_recording(run_dir: Path) -> None:
    """One recording holds the whole run: what every stage came to, and what was made of what."""
    (recording,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    summary, config, artifacts = {}, {}, {}
    run: dict[str, Any] = {}
    for kind, record in records(recording):
        if kind == "run":
            run = record
        elif kind == "config":
            config |= record["update"]
        elif kind == "summary":
            summary |= record["update"]
        elif kind == "artifact":
            artifacts[record["name"]] = record
    facts = RunFacts.from_dict(json.loads((run_dir / "facts/run.json").read_text()))
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("quickstart run", "quickstart", "train")
    assert {"quickstart", "tiny", "binary", "int8", "none"} <= set(run["tags"])
    assert config["optimizer"]["lr"] == 2.0e-3
    assert summary["perplexity_ratio"] == facts.perplexity.ratio
    assert summary["size_bytes"] == facts.size.folder_bytes
    assert summary["decode_tokens_per_s"] == facts.decode_tokens_per_s
    assert summary["verdict"] == facts.validation
    assert summary["train_tokens_per_s"] == facts.train.tokens_per_s
    assert artifacts["original-tiny"]["use_after_commit"]
    packed = json.loads(artifacts["quickstart-packed"]["metadata"])
    assert packed["size_bytes"] == facts.size.folder_bytes
    assert packed["made_from"] == "tiny"
