"""The whole configuration: every section is the settings class of the room that reads it.

A section's fields say what a key means, in which unit, and what it may be (`bitnet_train.settings`); nothing is written
a second time here. Importing this imports nothing heavy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from bitnet_train.bench.settings import BenchConfig
from bitnet_train.evaluate.settings import EvaluateConfig
from bitnet_train.exporters.options import ExportConfig
from bitnet_train.model.settings import AdapterConfig, ModelConfig, WeightConfig
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.report.settings import ReportConfig
from bitnet_train.runtime.settings import GenerateConfig
from bitnet_train.sensitivity.settings import SensitivityConfig
from bitnet_train.serve.settings import ChatConfig, PlaygroundConfig, ServeConfig
from bitnet_train.settings import setting
from bitnet_train.sweep.settings import SweepConfig
from bitnet_train.train.blocks.settings import BlockwiseConfig
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.loop.schedules import ScheduleConfig
from bitnet_train.train.loop.settings import DebugConfig, OptimConfig, TrainerConfig
from bitnet_train.train.losses.settings import LossConfig, TeacherConfig
from bitnet_train.train.trackers.settings import LoggerConfig
from bitnet_train.validation.settings import ValidateConfig


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes; nothing outside it is written."""

    root: str = setting("runs", "folder of all runs", path=True)
    name: str | None = setting(None, "folder name of the run; null = the time it starts, and a number if that is taken")
    dir: str | None = setting(None, "run directory; null = root/recipe/name", path=True)


@dataclass(frozen=True)
class Config:
    """Everything a stage may read. It never changes: what a run settles is another one (`changed`)."""

    recipe: str = setting("none", "name of the recipe; set by the command line's first word")
    model: ModelConfig = field(default_factory=ModelConfig)
    weight: WeightConfig = field(default_factory=WeightConfig)
    activation: ActivationScheme = field(default_factory=ActivationScheme)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    init: InitConfig = field(default_factory=InitConfig)
    blockwise: BlockwiseConfig = field(default_factory=BlockwiseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)
    chat: ChatConfig = field(default_factory=ChatConfig)
    playground: PlaygroundConfig = field(default_factory=PlaygroundConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
    run: RunConfig = field(default_factory=RunConfig)
    path: str | None = setting(None, "directory named on the command line: a run or an artefact", path=True)
    quiet: bool = setting(False, "print nothing for people")
    dry_run: bool = setting(False, "train, reconstruct: report what would happen, then stop")


CALL_KEYS = ("path", "quiet", "dry_run")  # set by the command line's words and flags, never by a file


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with other values, by dotted key such as `trainer.max_steps`."""
    for name, value in values.items():
        config = _changed(config, name.split("."), value)
    return config


def _changed(section: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return replace(section, **{name: _changed(getattr(section, name), rest, value) if rest else value})


def named_run(config: Config) -> Config:
    """Return the configuration with a `run.dir`: its own, else `run.root`/recipe/name or time."""
    if config.run.dir is not None:
        return config
    name = config.run.name or time.strftime("%Y-%m-%d_%H-%M-%S")
    return changed(config, {"run.dir": str(Path(config.run.root) / config.recipe / name)})


def as_plain(value: Any) -> Any:
    """Return a configuration, or a part of it, as plain dictionaries and lists."""
    if is_dataclass(value):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: as_plain(item) for name, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list | tuple) else value
