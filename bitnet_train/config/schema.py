"""The typed schema: every key a recipe, a group file or the command line may set.

One dataclass per configuration group, one field per key, one line and a unit per field. The fields that a lower
floor reads carry the names of that floor's own dataclass (`weight.granularity` is `WeightScheme.granularity`), so a
stage builds it with `build(WeightScheme, config.weight)`; `tests/contract/test_schema.py` holds the two together
without this file importing torch. Allowed values stand in the field's metadata: the composer checks them, `bitnet-train
show --keys` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bitnet_train.config.schema_key import key
from bitnet_train.config.schema_model import (
    ActivationConfig,
    AdapterConfig,
    BlockwiseConfig,
    InitConfig,
    ModelConfig,
    WeightConfig,
)
from bitnet_train.config.schema_training import (
    DataConfig,
    LoggerConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TeacherConfig,
    TrainerConfig,
)
from bitnet_train.config.schema_verbs import (
    BenchConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    SensitivityConfig,
    ValidateConfig,
)


@dataclass
class DebugConfig:
    """Looking inside; BITNET_DEBUG=1 switches it on too."""

    enabled: bool = field(default=False, metadata=key("print and log per-layer telemetry"))
    every_steps: int = field(default=50, metadata=key("steps between prints"))


@dataclass
class RunConfig:
    """Where a run writes; nothing outside it is written."""

    root: str = field(default="runs", metadata=key("folder of all runs", path=True))
    name: str | None = field(default=None, metadata=key("folder name of the run; null = the time it starts"))
    dir: str | None = field(default=None, metadata=key("run directory; null = root/recipe/name", path=True))


@dataclass
class Config:
    """Everything a stage may read."""

    recipe: str = field(default="none", metadata=key("name of the recipe; set by the command line's first word"))
    model: ModelConfig = field(default_factory=ModelConfig)
    weight: WeightConfig = field(default_factory=WeightConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    init: InitConfig = field(default_factory=InitConfig)
    blockwise: BlockwiseConfig = field(default_factory=BlockwiseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
    run: RunConfig = field(default_factory=RunConfig)
    path: str | None = field(
        default=None, metadata=key("directory named on the command line: a run or an artefact", path=True)
    )
    quiet: bool = field(default=False, metadata=key("print nothing for people"))
    dry_run: bool = field(default=False, metadata=key("train, reconstruct: report what would happen, then stop"))


CALL_KEYS = ("path", "quiet", "dry_run")  # set by the command line's words and flags, never by a file
