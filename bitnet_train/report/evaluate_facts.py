"""What `bitnet-train evaluate` writes, and all that a report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.evaluate.frontier import Frontier
from bitnet_train.evaluate.measured import Choices, Perplexity, Prompts, ScoredText
from bitnet_train.facts import BESIDE, LEFT_OUT, Facts


@dataclass(frozen=True)
class Against:
    """The model that was compared with."""

    source: str
    description: str


@dataclass(frozen=True)
class EvaluateFacts(Facts):
    """The packed model beside its original, file by file; `held_out` are its figures on the run's held-out text."""

    stage: ClassVar[str] = "evaluate"
    texts: tuple[ScoredText, ...]
    choices: tuple[Choices, ...]
    prompts: tuple[Prompts, ...]
    held_out: Perplexity | None = field(default=None, metadata=BESIDE)
    decode: DecodeSpeed | None = None
    decode_original: DecodeSpeed | None = None
    against: Against | None = None
    not_compared: str | None = None
    folder_bytes: int | None = None
    frontier: Frontier | None = field(default=None, metadata=LEFT_OUT)
    report: dict[str, str] | None = field(default=None, metadata=LEFT_OUT)
