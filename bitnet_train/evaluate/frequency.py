"""Token types in classes from frequent to rare, by how often they occur in the text that is scored.

Types are ranked by their count and cut where their running share of all tokens passes the bounds below: the few types
that make up half of a text are `frequent`, the long tail that makes up its last tenth is `rare`. Shares, not counts,
so that the classes mean the same in a short text and a long one. Extreme quantisation loses the tail first, and a mean
over tokens hides it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bitnet_train.evaluate.batches import IGNORED, Batch

CLASSES = ("frequent", "common", "uncommon", "rare")
BOUNDS = (0.5, 0.75, 0.9)  # of all tokens, from the most frequent type on


def count_types(batches: Sequence[Batch], vocabulary: int) -> Tensor:
    """Return how often each token type is predicted, int64 [vocabulary]; longer if a label is above it."""
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    for batch in batches:
        labels = batch["labels"][:, 1:]
        found = torch.bincount(labels[labels != IGNORED].flatten().cpu(), minlength=len(counts))
        counts = torch.nn.functional.pad(counts, (0, len(found) - len(counts))) + found
    return counts


def classify(counts: Tensor) -> Tensor:
    """Return the class of each type, int64 [vocabulary], an index into CLASSES; equal counts go by id."""
    order = torch.sort(counts, descending=True, stable=True).indices
    ranked = counts[order].double()
    before = (ranked.cumsum(0) - ranked) / ranked.sum().clamp(min=1)
    classes = torch.empty_like(counts)
    classes[order] = torch.bucketize(before, torch.tensor(BOUNDS, dtype=torch.float64), right=True)
    return classes
