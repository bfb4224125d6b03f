"""How many tokens a step reads: whole rows, or in the first steps pieces of them.

    step        0 ......................... short_steps ........................ max_steps
    reads       batch_rows x short_tokens        batch_rows x row_tokens

Pieces give more steps, each of less work, for the same tokens. A model that has only ever seen short ones is worse on
long ones, so the last steps read whole rows, while the learning rate falls. Sequence length warm-up (arXiv 2108.06084)
is the source of the idea; ours changes the length once and keeps the rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class RowLengths:
    """Tokens by step. `short_tokens` divides `row_tokens`, None = whole rows throughout.

    `short_fraction` is the share of the steps, from the first, that read pieces.
    """

    batch_rows: int
    row_tokens: int
    short_tokens: int | None = None
    short_fraction: float = 0.0

    def __post_init__(self) -> None:
        assert min(self.batch_rows, self.row_tokens, self.short_tokens or 1) > 0
        assert self.row_tokens % (self.short_tokens or 1) == 0
        assert 0.0 <= self.short_fraction <= 1.0

    def short_steps(self, max_steps: int) -> int:
        """Return how many steps, from the first, read pieces."""
        return 0 if self.short_tokens is None else int(self.short_fraction * max_steps)

    def tokens(self, max_steps: int) -> int:
        """Return the tokens that so many steps read, padding included."""
        short = self.short_steps(max_steps)
        return self.batch_rows * (short * (self.short_tokens or 0) + (max_steps - short) * self.row_tokens)

    def steps(self, max_tokens: int) -> int:
        """Return the steps that read `max_tokens` tokens, rounded up."""
        whole = self.batch_rows * self.row_tokens
        return next(steps for steps in count(max(1, max_tokens // whole)) if self.tokens(steps) >= max_tokens)
