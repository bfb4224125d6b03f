"""Beginnings that are known already: sequences of ended texts, within a budget of bytes, the oldest given up first.

A new text starts from a copy of the longest beginning that it shares with one of them or with a text that is being
written. Copies share memory until one of them writes. A chat that goes on takes over the sequence of its last answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST = 16  # sequences; each is compared with every new text
_WORTH_A_COPY = 16  # tokens: less is read again sooner than a page is copied


@dataclass(frozen=True)
class Known:
    """Token ids, and the sequence that has read the first of them."""

    ids: np.ndarray
    sequence: Any

    def shared(self, ids: np.ndarray) -> int:
        """Return how many tokens of the sequence `ids` begins with."""
        length = min(len(self.ids), len(ids), self.sequence.length)
        differs = self.ids[:length] != ids[:length]
        return int(differs.argmax()) if differs.any() else length


class Remembered:
    """The sequences of ended texts, the oldest first."""

    def __init__(self) -> None:
        self._kept: list[Known] = []

    @property
    def bytes(self) -> int:
        """Bytes of all of them, those counted twice that copies share."""
        return sum(known.sequence.bytes for known in self._kept)

    def keep(self, ids: Sequence[int], sequence: Any) -> None:
        """Keep a sequence that nobody writes to any more."""
        self._kept.append(Known(np.asarray(ids[: sequence.length], np.int32), sequence))
        del self._kept[:-_MOST]

    def drop_oldest(self) -> bool:
        """Give one up; False where there is none."""
        if self._kept:
            del self._kept[0]
            return True
        return False

    def beginning(self, ids: Sequence[int], others: Iterable[Known]) -> Any | None:
        """Return a sequence that has read a beginning of `ids`, at least one token less than all; None for none."""
        asked = np.asarray(ids, np.int32)
        found = [(known.shared(asked), known) for known in (*others, *self._kept)]
        length, best = max(found, key=lambda pair: pair[0], default=(0, None))
        length = min(length, len(ids) - 1)
        if best is None or length < _WORTH_A_COPY:
            return None
        is_whole = best.sequence.length == length and any(best is kept for kept in self._kept)
        if is_whole:
            self._kept = [kept for kept in self._kept if kept is not best]
        sequence = best.sequence if is_whole else best.sequence.copy()
        sequence.truncate(length)
        return sequence
