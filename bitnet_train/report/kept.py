"""What a report takes from the facts of each stage: the fields that it shows, and no others.

The classes of the stages themselves lie above this room, and bring torch with them. These hold the same names and
types, so a file that is not what its stage wrote is told in the same words: the file, the field, what it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bitnet_train.errors import FormatError
from bitnet_train.evaluate.measured import Perplexity
from bitnet_train.facts import BESIDE, Facts


@dataclass(frozen=True, kw_only=True)
class KeptText:
    """What was read: source, rows of training and held out, their length."""

    source: str
    path: str | None
    context_tokens: int
    train_rows: int
    validation_rows: int


@dataclass(frozen=True, kw_only=True)
class KeptTraining(Facts):
    """What training came to."""

    stage: ClassVar[str] = "train"
    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    metrics: dict[str, float]
    best_step: int | None = None
    is_stopped_early: bool = False
    lr: float | None = None
    arithmetic: str = ""
    trainable_parameters: int
    parameters: int
    data: KeptText


@dataclass(frozen=True, kw_only=True)
class KeptBudget(Facts):
    """How long training is to be."""

    stage: ClassVar[str] = "budget"
    max_steps: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class KeptConversion(Facts):
    """What became 1-bit, and what swapping alone cost."""

    stage: ClassVar[str] = "convert"
    model: str
    source: str
    layers: int
    weights: int
    full_precision: Perplexity | None
    swapped: Perplexity


@dataclass(frozen=True)
class KeptLayer:
    """One layer of the plan: its shape, how it is written ("" = float), and why."""

    name: str
    num_outputs: int
    num_inputs: int
    scheme: str
    reason: str

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return self.num_outputs * self.num_inputs


@dataclass(frozen=True, kw_only=True)
class KeptPlan(Facts):
    """What becomes of each layer."""

    stage: ClassVar[str] = "plan"
    layers: tuple[KeptLayer, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptSize:
    """Bytes of the 1-bit layers, of them as fp16, of the folder, and of the original's file where it is known."""

    packed_bytes: int
    scale_bytes: int
    fp16_bytes: int
    total_bytes: int
    folder_bytes: int | None = None
    weights_bytes: int | None = None
    original_bytes: int | None = None


@dataclass(frozen=True)
class KeptFormat:
    """One format that was written."""

    format: str
    folder: str
    num_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class KeptExport(Facts):
    """The packed folder, its sizes, and what else was written."""

    stage: ClassVar[str] = "export"
    artefact: str
    sizes: KeptSize
    written: KeptFormat | None = None
    also: tuple[KeptFormat, ...] = ()


@dataclass(frozen=True)
class KeptLevel:
    """One level of the proof."""

    name: str
    detail: str
    figures: dict[str, Any]
    first_failure: str | None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class KeptProof(Facts):
    """The verdict on the packed folder, or on one export of it."""

    stage: ClassVar[str] = "validate"
    path: str
    compared_with: str
    passed: bool
    levels: tuple[KeptLevel, ...]
    exports: tuple[KeptProof, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class KeptMachine(Facts):
    """The arithmetic, in words, and the threads that a run keeps."""

    stage: ClassVar[str] = "machine"
    why: str
    num_threads: int


@dataclass(frozen=True)
class KeptContinuations:
    """What both models wrote on the prompt of the run."""

    full_precision: str
    packed: str


@dataclass(frozen=True)
class KeptBoth:
    """One prompt, continued by both."""

    prompt: str
    continuations: KeptContinuations


@dataclass(frozen=True)
class KeptPerplexity:
    """Held-out perplexity of the original, with its layers just swapped, and of the packed model."""

    full_precision: float
    swapped: float
    trained: float
    ratio: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class KeptRun(Facts):
    """What a run that went the whole way came to."""

    stage: ClassVar[str] = "run"
    perplexity: KeptPerplexity
    weight: str
    activation: str
    validation: str
    continued: KeptBoth = field(metadata=BESIDE)
    stage_seconds: dict[str, float] | None = None


@dataclass(frozen=True)
class KeptChange:
    """From this step on a run went on under other settings: each key, old and new."""

    step: int
    changed: dict[str, tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class KeptChanges(Facts):
    """Every time that a run went on under other settings."""

    stage: ClassVar[str] = "continued"
    changes: tuple[KeptChange, ...] = ()


@dataclass(frozen=True)
class KeptSample:
    """What the model in training wrote on the prompt after `step` steps."""

    step: int
    prompt: str
    text: str
    seconds: float


@dataclass(frozen=True)
class KeptLayerFigures:
    """One line of `debug.jsonl`: what telemetry saw of a layer."""

    step: int
    layer: str
    zeros: float
    near_zero: float
    flips: float
    flips_init: float
    scale: tuple[float, ...]
    activation: tuple[float, ...]
    popcount: tuple[int, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> KeptLayerFigures:
        """Return a line as read; FormatError for what no telemetry writes.

        A long run of a large model has ten thousands of lines with a hundred numbers each: `facts.read` takes a minute.
        """
        step, layer = row.get("step"), row.get("layer")
        shares = [row.get(name) for name in ("zeros", "near_zero", "flips", "flips_init")]
        lists = [row.get(name) for name in ("scale", "activation", "popcount")]
        are_lists = all(type(values) is list and set(map(type, values)) <= {int, float} for values in lists)
        if type(step) is not int or type(layer) is not str or not set(map(type, shares)) <= {int, float}:
            raise FormatError("`step`, `layer`, or a share is missing or of another type")
        if not are_lists or float in map(type, lists[2] or ()):
            raise FormatError("`scale`, `activation` or `popcount` is no list of numbers")
        scale, activation, popcount = (tuple(values or ()) for values in lists)
        zeros, near_zero, flips, flips_init = (float(share or 0) for share in shares)
        return cls(step, layer, zeros, near_zero, flips, flips_init, scale, activation, popcount)
