"""Natural logarithms of probabilities, from raw logits: before temperature, top-k and what else shapes the drawing."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log(softmax) of the rows of logits float32 [T, V], float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def likeliest(row: np.ndarray, count: int) -> list[int]:
    """Return the ids of the `count` largest of row [V], largest first, equals by id, as a greedy text takes them."""
    count = min(count, len(row))
    if count == 0:
        return []
    least = np.partition(row, -count)[-count]
    found = np.flatnonzero(row >= least)
    return found[np.argsort(-row[found], kind="stable")][:count].tolist()
