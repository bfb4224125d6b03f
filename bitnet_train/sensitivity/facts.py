"""What `bitnet-train sensitivity` keeps of a run: what every part measured, and what a few more bytes would buy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bitnet_train.facts import BESIDE, Facts
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.sensitivity.scan import Scan


@dataclass(frozen=True)
class Advice:
    """Entries of `weight.overrides` for a budget, as a word to paste; the untrained model with them, if any."""

    budget_bytes: float
    extra_bytes: int
    overrides: tuple[dict[str, Any], ...]
    word: str
    everything: Fidelity | None


@dataclass(frozen=True)
class SensitivityFacts(Facts):
    """The model, the scan of it, and the advice that follows."""

    stage: ClassVar[str] = "sensitivity"
    model: str
    source: str
    scan: Scan = field(metadata=BESIDE)
    suggestion: Advice
