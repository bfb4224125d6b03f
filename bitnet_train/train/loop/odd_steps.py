"""Steps whose numbers stand out: what is said and kept of them, and which are left out.

A loss or a gradient that is not finite may come of one batch. Such a step is left out: no weight, no moment and no
balance changes, the run goes on with the next rows, and one more than `trainer.skip_steps` in a row ends it. Where a
weight itself is not finite the next step would be no better, so the run ends at once.

    odd_steps.jsonl    {"step": 4, "what": "the loss is nan", "rows": [12, 40]}

Rows are numbers of those that are trained on, of all processes, in the order of the token cache.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bitnet_train.whole import append_line

ODD_STEPS_FILE = "odd_steps.jsonl"
RowsOfStep = Callable[[int], list[int]]


@dataclass
class OddSteps:
    """Says and keeps which steps stood out; `path` None keeps nothing. `rows_of` gives the rows that a step read."""

    most: int = 3
    path: Path | None = None
    rows_of: RowsOfStep = field(default=lambda step: [])
    in_a_row: int = field(default=0, init=False)

    def may_leave_out(self) -> bool:
        """Count a step that is not finite; whether the run may go on without it."""
        self.in_a_row += 1
        return self.in_a_row <= self.most

    def is_good(self) -> None:
        """Begin to count anew."""
        self.in_a_row = 0

    def tell(self, index: int, what: str) -> None:
        """Say on stderr, and append to the file, what stood out in the step that starts from `index` finished ones."""
        rows = self.rows_of(index)
        step = index + 1
        print(f"warning: step {step}: {what} (rows {', '.join(map(str, rows)) or 'unknown'}).", file=sys.stderr)
        if self.path is not None:
            append_line(self.path, json.dumps({"step": step, "what": what, "rows": rows}))
