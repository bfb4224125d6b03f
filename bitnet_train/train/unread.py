"""Say what of the data is not read: fields, roles, and what a chat template passes over. Each once, with its count."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitnet_train.train.corpus import Corpus

log = logging.getLogger(__name__)


def count_left_out(corpus: Corpus, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return what neither the reader nor the chat template took, in words, with how often over all splits."""
    found = Counter(corpus.notes)
    for of_split in counts.values():
        found.update(of_split["notes"])
    return dict(sorted(found.items()))


def report_unread(unused_fields: Mapping[str, int], left_out: Mapping[str, int]) -> None:
    """Warn of both."""
    if unused_fields:
        fields = ", ".join(f"`{name}` ({rows} rows)" for name, rows in unused_fields.items())
        log.warning("Fields of the data that nothing reads: %s.", fields)
    for words, times in left_out.items():
        log.warning("Of the data, %s %s.", times, words)
