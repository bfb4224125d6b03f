"""What a whole run came to: `facts/run.json`, and the measured results of recipes (`recipes/results/*.json`).

No torch here: `bitnet-train ls runs` and the tables read it. Fields with a default are missing in older files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.facts import BESIDE, LEFT_OUT, Facts
from bitnet_train.packed.manifest import Sizes


@dataclass(frozen=True)
class Spent:
    """What making the start cost: training tokens of `blockwise` and seconds of all of it; part of the run's budget."""

    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class FolderSize:
    """Bytes of all files of a packed folder, of its weights among them, and of the original where it is known."""

    folder_bytes: int
    weights_bytes: int
    original_bytes: int | None
    tables: str | None = None
    """`weight.tables` of the run."""


@dataclass(frozen=True)
class ModelSize:
    """Bytes of the packed layers; of the whole folder and the original in a run, which older files lack."""

    layers: Sizes = field(metadata=BESIDE)
    folder: FolderSize | None = field(default=None, metadata=BESIDE)

    @property
    def one_bit_bytes(self) -> int:
        """Bytes of the 1-bit layers alone: their codes and scales."""
        return self.layers.packed_bytes + self.layers.scale_bytes

    @property
    def folder_bytes(self) -> int:
        """Bytes of the whole folder."""
        return self.layers.total_bytes if self.folder is None else self.folder.folder_bytes

    @property
    def original_bytes(self) -> int | None:
        """Bytes of the original as it was given; None where that is not known."""
        return None if self.folder is None else self.folder.original_bytes


@dataclass(frozen=True)
class RunPerplexity:
    """Held-out perplexity of the original, with its layers just swapped, and of the packed model."""

    full_precision: float
    swapped: float
    trained: float
    trained_nats: float
    ratio: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TextResult:
    """Perplexity of both models on one text, and how far they agree."""

    name: str
    held_out: bool = False
    window_tokens: int
    tokens: int
    full_precision: float | None
    trained: float
    ratio: float | None
    kl: float | None
    top1_agreement: float | None


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What all of training cost, and how much of it came before the first step (`blockwise`, `init`)."""

    steps: int
    tokens: int
    seconds: float
    before: Spent = field(default_factory=Spent)
    tokens_per_s: float


@dataclass(frozen=True)
class Continuations:
    """What both models wrote on the prompt of the run."""

    full_precision: str
    packed: str


@dataclass(frozen=True)
class DecodeSpeeds:
    """How fast both models decode."""

    full_precision: DecodeSpeed
    packed: DecodeSpeed


@dataclass(frozen=True)
class BothContinued:
    """One prompt continued by the original and by the packed model, and how fast both write."""

    prompt: str
    continuations: Continuations
    decode: DecodeSpeeds


@dataclass(frozen=True, kw_only=True)
class RunFacts(Facts):
    """The figures that a result keeps: quality, size, cost, speed, verdict, and where things are."""

    stage: ClassVar[str] = "run"
    recipe: str
    source: str
    weight: str
    activation: str
    adapter: str
    perplexity: RunPerplexity
    texts: tuple[TextResult, ...] = ()
    size: ModelSize
    train: TrainingCost
    decode_tokens_per_s: float
    validation: str
    passed: bool
    run_dir: str | None = field(default=None, metadata=LEFT_OUT)
    continued: BothContinued = field(metadata=BESIDE)
    stage_seconds: dict[str, float] | None = field(default=None, metadata=LEFT_OUT)
