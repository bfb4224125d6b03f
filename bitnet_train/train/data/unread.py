"""What of chats is not read: roles, fields of messages, and what a chat template passes over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitnet_train.train.data.corpus import Corpus


def count_left_out(corpus: Corpus, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return what neither the reader nor the chat template took, in words, with how often over all splits."""
    found = Counter(corpus.notes)
    for of_split in counts.values():
        found.update(of_split["notes"])
    return dict(sorted(found.items()))
