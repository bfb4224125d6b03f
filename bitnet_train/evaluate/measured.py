"""What measuring gives, as figures and texts; no torch here, so that a report is made of a file of them alone.

With one model alone there is no teacher, and what compares the two is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Any

from bitnet_train.facts import BESIDE, LEFT_OUT


@dataclass(frozen=True)
class Perplexity:
    """Mean negative log-likelihood in nats per token, its exponential, and how many tokens were predicted."""

    nats: float
    perplexity: float
    tokens: int


@dataclass(frozen=True)
class Score:
    """One model on the labelled tokens of a text; `evaluate.tally` says how each figure is made."""

    nats: float
    perplexity: float
    tokens: int
    accuracy: float
    confidence: float
    overconfidence: float
    calibration_error: float
    entropy: float


@dataclass(frozen=True)
class Bucket:
    """One frequency class: how many token types and tokens it has, and how often each model's first guess is right.

    `retention` is the student's accuracy over the teacher's, None where that is 0 or unknown.
    """

    name: str
    types: int
    tokens: int
    student: float | None
    teacher: float | None
    retention: float | None


@dataclass(frozen=True)
class Comparison:
    """Both models on one text; what needs a teacher is None without one."""

    student: Score
    teacher: Score | None
    buckets: tuple[Bucket, ...]
    perplexity_ratio: float | None = None
    kl: float | None = None
    top1_agreement: float | None = None
    confidence_skew: float | None = None


@dataclass(frozen=True)
class ScoredText:
    """A comparison, the text it was made on, and the windows that it was read in; `held_out` is that of a run."""

    name: str
    compared: Comparison = field(metadata=BESIDE)
    window_tokens: int
    window_overlap: bool | None
    held_out: bool = False


@dataclass(frozen=True)
class Accuracy:
    """How often the right choice won, by log-likelihood and by log-likelihood per byte, with standard errors."""

    acc: float
    acc_stderr: float | None
    acc_norm: float
    acc_norm_stderr: float | None


@dataclass(frozen=True)
class Retained:
    """What the student keeps of the teacher's accuracy; None where the teacher has nothing to keep."""

    retention: float | None
    retention_norm: float | None
    above_chance_retention: float | None
    above_chance_retention_norm: float | None


@dataclass(frozen=True)
class Choices:
    """One file of multiple choice; `chance` is the accuracy of guessing."""

    name: str
    questions: int
    chance: float
    student: Accuracy
    teacher: Accuracy | None
    retained: Retained | None = field(default=None, metadata=BESIDE)


@dataclass(frozen=True)
class Writing:
    """Figures of one text, or their means over several; None where no text has the figure."""

    tokens: float
    characters: float
    ended: bool | float
    repetition: float
    seconds: float
    parses: bool | float | None = field(default=None, metadata=LEFT_OUT)
    rouge_l_to_reference: float | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class Agreement:
    """How far two texts on one prompt agree, or the means over several."""

    common_prefix_tokens: float
    common_prefix_share: float
    rouge_l: float
    token_f1: float


@dataclass(frozen=True)
class WrittenText:
    """What one model wrote on a prompt."""

    text: str
    figures: Writing


@dataclass(frozen=True)
class Turn:
    """One prompt, or one turn of a chat, and what each role (`student`, `teacher`) wrote on it."""

    name: str
    prompt: str
    reference: str | None
    answers: dict[str, WrittenText]
    agreement: Agreement | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class WrittenTexts:
    """What was written on the prompts of one file: means by role, and every turn."""

    engines: dict[str, str] = field(default_factory=dict)
    student: Writing
    teacher: Writing | None = field(default=None, metadata=LEFT_OUT)
    agreement: Agreement | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Prompts:
    """One file of prompts: what was written on them, or why they were skipped."""

    name: str
    kind: str
    skipped: str | None = field(default=None, metadata=LEFT_OUT)
    written: WrittenTexts | None = field(default=None, metadata=BESIDE)


def means(rows: Sequence[Any]) -> Any:
    """Return the mean of every figure over the rows (all `Writing`, or all `Agreement`) that have it; true counts 1."""
    (kind,) = {type(row) for row in rows}
    held = {each.name: [getattr(row, each.name) for row in rows] for each in fields(kind)}
    kept = {name: [float(value) for value in values if value is not None] for name, values in held.items()}
    return kind(**{name: fmean(values) if values else None for name, values in kept.items()})
