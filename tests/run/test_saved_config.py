"""A run's config.yaml keeps its mode when it is written again by a run that goes on."""

from __future__ import annotations

import stat
from pathlib import Path

import yaml

from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.trained_settings import record

SECRET = "logger.custom={_target_: lightning.pytorch.loggers.CometLogger, api_key: abc123secret}"


def test_what_holds_a_secret_is_for_its_owner_alone_when_it_is_written_again_too(tmp_path: Path) -> None:
    directory, words = RunDirectory(tmp_path), ["logger.kind=custom", SECRET]
    directory.create(to_yaml(compose("quickstart", words).config))
    record(to_yaml(compose("quickstart", [*words, "optimizer.lr=0.5"]).config), tmp_path)
    assert yaml.safe_load(directory.config.read_text())["optimizer"]["lr"] == 0.5
    assert stat.S_IMODE(directory.config.stat().st_mode) == 0o600
