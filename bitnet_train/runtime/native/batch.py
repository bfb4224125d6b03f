"""Continue several prompts greedily in steps of all of them: one pass over the weights serves every row.

The prompts are computed together, then each step gives every row that has not ended one token. A row that ends leaves
the batch. Each row of a product is computed on its own, so a row's tokens are those it would get alone.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitnet_train.runtime.native.written import Written


@dataclass
class Row:
    """One prompt, where its text goes, and its `_core` sequence; `token_ids` grows."""

    prompt: list[int]
    written: Written
    sequence: Any
    token_ids: list[int] = field(default_factory=list)

    def take(self, token_id: int, stop_ids: Set[int]) -> bool:
        """Add one token; True while the row goes on."""
        self.token_ids.append(token_id)
        return token_id not in stop_ids and not self.written.push(token_id)


def continue_greedily(core: Any, rows: list[Row], max_new_tokens: int, stop_ids: Set[int]) -> None:
    """Add up to `max_new_tokens` tokens to every row."""
    inputs = [row.prompt for row in rows]
    for _ in range(max_new_tokens):
        if not rows:
            return
        logits = core.forward([row.sequence for row in rows], [np.asarray(ids, np.int32) for ids in inputs], False)
        chosen = np.argmax(logits, axis=-1).tolist()
        rows = [row for row, token_id in zip(rows, chosen, strict=True) if row.take(token_id, stop_ids)]
        inputs = [row.token_ids[-1:] for row in rows]
