"""What each stage leaves in `facts/` for the ones after it; those of `evaluate` and `run` lie apart, without torch.

Fields with a default are missing in what older versions wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bitnet_train.evaluate.measured import Perplexity
from bitnet_train.facts import BESIDE, LEFT_OUT, Facts
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.model.plan import Plan
from bitnet_train.packed.entries import Sizes
from bitnet_train.run.result import ModelSize, Spent
from bitnet_train.train.blocks.blockwise import Reconstruction
from bitnet_train.train.data.facts import DataFacts
from bitnet_train.train.loop.budget import Estimate
from bitnet_train.train.loop.fit import FitResult
from bitnet_train.train.loop.machine import Arithmetic
from bitnet_train.train.loop.products import ProductChoice


@dataclass(frozen=True)
class ConvertFacts(Facts):
    """Which layers become 1-bit, and the perplexity before (None: measured later) and with the layers just swapped."""

    stage: ClassVar[str] = "convert"
    model: str
    source: str
    layers: int
    weights: int
    record: ConversionRecord
    data: DataFacts
    full_precision: Perplexity | None
    swapped: Perplexity


@dataclass(frozen=True)
class PlannedLayer:
    """What becomes of one layer: N x K, how its weights are written ("" = float), and why."""

    name: str
    num_outputs: int
    num_inputs: int
    scheme: str
    reason: str


@dataclass(frozen=True)
class PlanFacts(Facts):
    """What training made of every Linear, Conv1D and Embedding."""

    stage: ClassVar[str] = "plan"
    layers: tuple[PlannedLayer, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> PlanFacts:
        """Return a plan as a run keeps it."""
        rows = (
            PlannedLayer(row.name, *row.shape, row.scheme.describe() if row.scheme is not None else "", row.reason)
            for row in plan.rows
        )
        return cls(tuple(rows), plan.notes)


@dataclass(frozen=True)
class MachineFacts(Facts):
    """The arithmetic, the products and the CPU threads that a run keeps."""

    stage: ClassVar[str] = "machine"
    arithmetic: Arithmetic = field(metadata=BESIDE)
    why: str
    num_threads: int
    products: ProductChoice | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class PlanesFacts(Facts):
    """What `weight.budget_mb` came to: bytes of the folder, untrained cost, planes by layer, and the entries."""

    stage: ClassVar[str] = "planes"
    asked: dict[str, Any]
    folder_bytes: int
    nats: float
    planes: dict[str, Any]
    overrides: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class TeacherFacts(Facts):
    """How the teacher multiplies, `float` or `int8`, and what int8 costs in nats a token, with its head or without."""

    stage: ClassVar[str] = "teacher"
    products: str
    nats: float
    with_head: bool


@dataclass(frozen=True)
class Asked:
    """What decides the steps of a run; `max_steps` itself only where nothing stands above it."""

    max_steps: int | None
    max_tokens: int | None
    max_minutes: float | None
    step_tokens: int
    max_epochs: float | None = field(default=None, metadata=LEFT_OUT)
    short_rows: tuple[int, float] | None = field(default=None, metadata=LEFT_OUT)
    """Tokens and fraction of short rows."""


@dataclass(frozen=True, kw_only=True)
class BudgetFacts(Facts):
    """What was asked for, and the steps and the rate that came of it."""

    stage: ClassVar[str] = "budget"
    asked: Asked
    lr: float | None = None
    estimate: Estimate = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class StartFacts(Facts):
    """What making the start cost, its figures, and a digest of the settings that decided it."""

    stage: ClassVar[str] = "start"
    fingerprint: str
    equalise: dict[str, Any] | None = field(default=None, metadata=LEFT_OUT)
    blockwise: Reconstruction | None = field(default=None, metadata=LEFT_OUT)
    init: dict[str, Any] | None = field(default=None, metadata=LEFT_OUT)
    head: dict[str, Any] | None = field(default=None, metadata=LEFT_OUT)
    seconds: float
    tokens: int


@dataclass(frozen=True)
class ChangedAt:
    """From this step on a run went on under other settings: each key, old and new."""

    step: int
    changed: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class ContinuedFacts(Facts):
    """Every time that a run went on under other settings."""

    stage: ClassVar[str] = "continued"
    changes: tuple[ChangedAt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainFacts(Facts):
    """What training did, what it cost before its first step, and the configuration and text that it read."""

    stage: ClassVar[str] = "train"
    result: FitResult = field(metadata=BESIDE)
    lr: float | None = None
    arithmetic: str = ""
    before: Spent = field(default_factory=Spent)
    trainable_parameters: int
    parameters: int
    data: DataFacts
    config: dict[str, Any]


@dataclass(frozen=True)
class ReconstructFacts(Facts):
    """What block-wise training alone did."""

    stage: ClassVar[str] = "reconstruct"
    model: str
    source: str
    data: DataFacts
    made: Reconstruction = field(metadata=BESIDE)


@dataclass(frozen=True)
class ImportFacts(Facts):
    """Where a model that was 1-bit already was packed to, and its bytes."""

    stage: ClassVar[str] = "import"
    artefact: str
    sizes: Sizes


@dataclass(frozen=True)
class MergeFacts(Facts):
    """Which checkpoint was merged, with its figures, and with `trainer.keep_best` those that chose it."""

    stage: ClassVar[str] = "merge"
    checkpoint: str
    step: int
    best: dict[str, Any] | None = None
    tokens: int | None = None
    metrics: dict[str, float] | None = None


@dataclass(frozen=True)
class WrittenFormat:
    """One format that was written out, and what its exporter says of it."""

    format: str
    folder: str
    num_bytes: int | None = field(default=None, metadata=LEFT_OUT)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportFacts(Facts):
    """The packed folder with its sizes, and what else was written of it."""

    stage: ClassVar[str] = "export"
    artefact: str
    sizes: ModelSize
    written: WrittenFormat | None = field(default=None, metadata=LEFT_OUT)
    also: tuple[WrittenFormat, ...] = ()
    hub: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class LevelFacts:
    """One level of the proof."""

    name: str
    detail: str
    figures: dict[str, Any]
    first_failure: str | None
    passed: bool


@dataclass(frozen=True)
class ValidateFacts(Facts):
    """The verdict on a packed folder, or on one export, level by level; `exports` are those of the run."""

    stage: ClassVar[str] = "validate"
    path: str
    compared_with: str
    passed: bool
    levels: tuple[LevelFacts, ...]
    exports: tuple[ValidateFacts, ...] | None = field(default=None, metadata=LEFT_OUT)
