from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import run, tiny_module

from bitnet_train.errors import ConfigError
from bitnet_train.train.tracking import TRACKERS, JsonlLogger, build_loggers, require_package, wandb_has_key

SECRET = "hf_plantedSecret0123456789abcdef"
PASSWORD = "planted-password"


def test_each_row_is_on_disk_when_logging_returns(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "run" / "metrics.jsonl")
    logger.log_metrics({"loss": 1.5, "bad": float("nan")}, 3)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 3, "loss": 1.5, "bad": null}\n'
    logger.log_metrics({"loss": 1.0}, 4)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


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


WANDB = """
import sys
from pathlib import Path
from bitnet_train.train.tracking import build_loggers
run_dir, secret, password = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = {"hf_token": secret, "url": f"https://me:{password}@example.org", "deep": [{"password": password}],
          "overrides": [f"logger.api_key={password}", secret], "lr": 0.125}
(logger,) = build_loggers("wandb", run_dir, config, project="planted", name="a run")
logger.log_metrics({"loss": 0.5}, 1)
logger.experiment.finish()
"""


def test_a_real_offline_wandb_run_stays_in_its_folder_and_has_no_secret(tmp_path: Path) -> None:
    home, run_dir, work = tmp_path / "home", tmp_path / "run", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment = kept | {"HOME": str(home), "TMPDIR": str(tmp_path)}
    environment["NETRC"] = str(home / "none")
    command = [sys.executable, "-c", WANDB, str(run_dir), SECRET, PASSWORD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, cwd=work)
    assert done.returncode == 0, done.stderr[-3000:]
    (recording,) = run_dir.rglob("*.wandb")
    content = b"".join(path.read_bytes() for path in run_dir.rglob("*") if path.is_file())
    assert b"planted" in recording.read_bytes(), "the project's name is there, so the file is readable text"
    assert b"[redacted]" in content
    assert SECRET.encode() not in content
    assert PASSWORD.encode() not in content
    assert [path for path in (*home.rglob("*"), *work.rglob("*")) if path.is_file()] == []


def test_a_key_in_the_environment_means_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not wandb_has_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_has_key()
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_has_key()


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'bitnet-train\[tensorboard\]'"):
        require_package("surely_not_installed", "tensorboard", "pip install 'bitnet-train[tensorboard]'")


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`logger\.kind=tensorbord`.*Did you mean `tensorboard`"):
        build_loggers("tensorbord", tmp_path, {})
