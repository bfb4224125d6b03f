"""What was read for a run, as every stage that reads text keeps it under `data`."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitnet_train.facts import LEFT_OUT
from bitnet_train.train.data.packing import Layout
from bitnet_train.train.data.tokenise import Counts


@dataclass(frozen=True)
class MixShare:
    """One data set of a mix: its weight, its rows, and its share of the rows of a pass."""

    path: str
    weight: float
    rows: int
    share: float


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Source, files, what is not read, hashes, and figures by split. Fields with a default are missing in older files.

    `train` and `validation` count all rows made; `train_rows` and `validation_rows` what is left after
    `max_train_rows` and `max_validation_rows`.
    """

    source: str
    path: str | None
    kind: str
    context_tokens: int
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names by split, or by the reason why they are left out."""
    unused_fields: dict[str, int] | tuple[str, ...] = field(default_factory=dict)
    """Rows by field; older files have the names alone."""
    left_out: dict[str, int] = field(default_factory=dict)
    """How often, by what, in words."""
    content_sha256: str
    cache_key: str
    train: Counts
    validation: Counts
    layout: Layout | None = field(default=None, metadata=LEFT_OUT)
    mix: tuple[MixShare, ...] | None = field(default=None, metadata=LEFT_OUT)
    train_rows: int
    validation_rows: int
    batch_rows: int
    seed: int
