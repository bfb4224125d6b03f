"""Which of several models nothing beats: no other is as small and as good, and better in one of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A model on the plane: bytes on disk, and the perplexity ratio to its original. Less is better in both."""

    label: str
    side: str
    num_bytes: int
    ratio: float


def beats(one: Place, other: Place) -> bool:
    """Whether `one` is no larger and no worse than `other`, and not equal in both."""
    no_worse = one.num_bytes <= other.num_bytes and one.ratio <= other.ratio
    return no_worse and (one.num_bytes, one.ratio) != (other.num_bytes, other.ratio)


def frontier(places: Sequence[Place]) -> list[Place]:
    """Return those that none of the others beats, the smallest first."""
    return sorted(
        (place for place in places if not any(beats(other, place) for other in places)),
        key=lambda place: (place.num_bytes, place.label),
    )
