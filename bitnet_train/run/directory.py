"""The folder of one run: every file a run writes lies in it, under a name fixed here.

runs/quickstart/2026-11-22_14-05-09/
  config.yaml     the composed configuration
  facts/          one JSON a stage: what it did, measured figures, input hashes
  report.html     all of it as one page, written anew as the run goes
  metrics.jsonl   one line a logged step
  trackers/       which run of a tracker this is, and what it was told; beside it the tracker's own folder
  samples.jsonl   one line a text that the model in training wrote
  odd_steps.jsonl one line a step that was left out, or whose loss jumped, with its rows
  start/          what training starts from, where `init` or `blockwise` made it
  checkpoints/    step-000120/ ...
  merged/         the trained model, float32 latents and scales
  artefact/       the packed model
  exports/        the same in other formats, a folder each
  cache/          tokenised text
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from bitnet_train.config.schema import Config
from bitnet_train.disk import writing
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.facts import Facts, Frame
from bitnet_train.importers.found import RUN_FILE
from bitnet_train.json_text import parse_json
from bitnet_train.model.folder_names import RECORD_FILE
from bitnet_train.packed.names import EXPORT_NAME, MANIFEST_NAME
from bitnet_train.run.ranks import rank
from bitnet_train.run.report import refresh
from bitnet_train.run.saved_config import write_saved
from bitnet_train.run.trained_settings import check_finished
from bitnet_train.whole import write_whole

StageFacts = TypeVar("StageFacts", bound=Facts)


WITHIN_TRAINING = ("plan", "planes", "machine", "teacher", "budget", "start", "continued")  # stages that are no verbs
_WRITER: dict[str, str] = dict.fromkeys(WITHIN_TRAINING, "train")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and its facts."""

    root: Path

    @property
    def config(self) -> Path:
        """The composed configuration."""
        return self.root / RUN_FILE

    @property
    def start(self) -> Path:
        """The converted model that training starts from, kept where it is more than copied weights."""
        return self.root / "start"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of training."""
        return self.root / "checkpoints"

    @property
    def merged(self) -> Path:
        """The trained model, adapters merged."""
        return self.root / "merged"

    @property
    def artefact(self) -> Path:
        """The packed model."""
        return self.root / "artefact"

    @property
    def exports(self) -> Path:
        """The packed model in other formats."""
        return self.root / "exports"

    @property
    def cache(self) -> Path:
        """Tokenised text."""
        return self.root / "cache"

    def artefact_is_old(self) -> bool | None:
        """Whether the run was merged after it was packed; None where it is not packed."""
        packed, merged = self.artefact / MANIFEST_NAME, self.merged / RECORD_FILE
        if not packed.is_file():
            return None
        return merged.is_file() and merged.stat().st_mtime_ns > packed.stat().st_mtime_ns

    def written_exports(self) -> list[Path]:
        """Return the folders of `exports` that were written whole."""
        return sorted(path.parent for path in self.exports.glob(f"[!.]*/{EXPORT_NAME}"))

    def create(self, config_yaml: str) -> None:
        """Make the folder and write the configuration, unless the run is being continued."""
        with writing(self.root / "facts"):
            (self.root / "facts").mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            write_saved(self.config, config_yaml)

    def keep(self, facts: StageFacts) -> StageFacts:
        """Write what a stage did, with the versions and the time, and return it with those."""
        frame = Frame(facts.stage, time.strftime("%Y-%m-%dT%H:%M:%S%z"), made_by())
        framed = replace(facts, frame=frame)
        self._write(facts.stage, framed.to_dict())
        if facts.stage not in WITHIN_TRAINING:
            refresh(self.root)
        return framed

    def kept(self, kind: type[StageFacts]) -> StageFacts | None:
        """Return what an earlier stage wrote, or None if it has not run."""
        values = self.facts(kind.stage)
        return None if values is None else kind.from_dict(values, f"{self._facts(kind.stage)}")

    def facts(self, stage: str) -> dict[str, Any] | None:
        """Return what an earlier stage wrote as plain JSON, or None if it has not run."""
        path = self._facts(stage)
        if not path.exists():
            return None
        try:
            return parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(
                f"{path} is not valid JSON ({error}). Run `bitnet-train {_WRITER.get(stage, stage)} {self.root}` again."
            ) from error

    def _write(self, stage: str, values: dict[str, Any]) -> None:
        if rank() == 0:  # the other processes of a run have the same to say
            write_whole(self._facts(stage), json.dumps(values, indent=2, default=str) + "\n")

    def _facts(self, stage: str) -> Path:
        return self.root / "facts" / f"{stage}.json"


def packed_folder(config: Config) -> tuple[Path, RunDirectory | None]:
    """Return the packed folder that the command line named, and its run directory if it lies in one."""
    directory = RunDirectory(Path(config.run.dir)) if config.run.dir else None
    if directory is not None:
        check_finished(config, directory.root)
    named = Path(config.path) if config.path else None
    if named is not None and (named / MANIFEST_NAME).is_file():
        return named, directory
    if directory is None:
        raise ConfigError("Name a run directory or a packed folder: `bitnet-train validate runs/RECIPE/TIME`.")
    return directory.artefact, directory


def is_model(config: Config) -> bool:
    """Whether the command line named neither a run nor a packed folder, but a model in another format."""
    named = Path(config.path) if config.path else None
    return named is not None and not any((named / name).is_file() for name in (MANIFEST_NAME, RUN_FILE))


def made_by() -> dict[str, Any]:
    """Return the versions and the machine a figure was measured with."""
    packages = ("bitnet-train", "torch", "lightning", "transformers", "peft")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
