"""What `bitnet-train bench` keeps of a run: what was timed, and a row a runtime, instruction set, number of threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from bitnet_train.bench.row import Row
from bitnet_train.bench.timing import Workload
from bitnet_train.facts import BESIDE, Facts


@dataclass(frozen=True)
class BenchFacts(Facts):
    """The workload, and what each contender took for it."""

    stage: ClassVar[str] = "bench"
    workload: Workload = field(metadata=BESIDE)
    rows: tuple[Row, ...]
