"""What `bitnet-train bench` reports: a row a runtime, instruction set and number of threads."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Memory:
    """Bytes of one process; None where the system does not say.

    `resident` and `peak` are what loading and running added: what stays, and the most there was. `process_peak` is the
    most that the process held with everything, its libraries too.
    """

    resident: int | None = None
    peak: int | None = None
    process_peak: int | None = None

    @classmethod
    def of(cls, before: int, after: int | None, peak: int | None) -> Memory:
        """Return the differences to what was resident `before`."""
        return cls(
            None if after is None else max(0, after - before), None if peak is None else max(0, peak - before), peak
        )


@dataclass(frozen=True)
class Row:
    """Tokens per second of every repeat, and what else was seen.

    `context_ms` is milliseconds per token after so many tokens (text, as JSON has it).
    """

    runtime: str
    isa: str
    num_threads: int
    prefill_samples: tuple[float, ...]
    decode_samples: tuple[float, ...]
    load_s: float | None = None
    memory: Memory = Memory()
    context_ms: dict[str, float] = field(default_factory=dict)

    @property
    def prefill_tokens_per_s(self) -> float:
        """Median."""
        return statistics.median(self.prefill_samples)

    @property
    def decode_tokens_per_s(self) -> float:
        """Median."""
        return statistics.median(self.decode_samples)

    def to_dict(self) -> dict[str, Any]:
        """Return fields and medians for a JSON file."""
        medians = {
            "prefill_tokens_per_s": self.prefill_tokens_per_s,
            "decode_tokens_per_s": self.decode_tokens_per_s,
            "ms_per_token": 1000 / self.decode_tokens_per_s,
        }
        return {**asdict(self), **medians}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """Inverse of `to_dict`, and of `dataclasses.asdict`; medians are computed anew."""
        own: dict[str, Any] = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("prefill_samples", "decode_samples"):
            own[name] = tuple(own[name])
        own["memory"] = Memory(**own["memory"])
        return cls(**own)


def merged(rows: Sequence[Row]) -> Row:
    """Return the row over the samples of several rounds of one contender; load time and memory are medians too."""
    first = rows[0]
    return Row(
        first.runtime,
        first.isa,
        first.num_threads,
        tuple(sample for row in rows for sample in row.prefill_samples),
        tuple(sample for row in rows for sample in row.decode_samples),
        _median([row.load_s for row in rows]),
        Memory(
            _whole([row.memory.resident for row in rows]),
            _whole([row.memory.peak for row in rows]),
            _whole([row.memory.process_peak for row in rows]),
        ),
        max((row.context_ms for row in rows), key=len),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _whole(values: Sequence[int | None]) -> int | None:
    median = _median(values)
    return None if median is None else int(median)
