"""Text to validate with that every machine has: a few prompts, and the language reference inside CPython.

`pydoc_data.topics` holds about 460 kB of prose, the text behind `help("while")`. The standard-library corpus of this
package leaves that folder out, so the bundled model has never seen it: it is held-out text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from bitnet_train.errors import DataError

PROMPTS = (
    "def main():",
    "import os",
    "class Parser:\n    def __init__(self",
    "Once upon a time",
    "The capital of France is",
    "To sort a list in Python, you",
    "for i in range(",
    "2 + 2 =",
    "Write a haiku about the sea.",
    "The quick brown fox",
    '"""Return the number of',
    "try:\n    value = int(text)\nexcept",
)


def held_out_text() -> str:
    """Return the language reference of the running interpreter; DataError where CPython came without it."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "This Python has no `pydoc_data`, the default text of validation. Give `prompts` of your own."
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def equal_windows(token_ids: Sequence[int], num_windows: int, num_tokens: int) -> list[list[int]]:
    """Return up to `num_windows` windows of `num_tokens` tokens that do not overlap, spread over the whole sequence."""
    available = len(token_ids) // num_tokens
    taken = min(num_windows, available)
    starts = [num_tokens * (i * available // taken) for i in range(taken)]
    return [list(token_ids[start : start + num_tokens]) for start in starts]


def encode_all(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    """Return the token ids of each text; DataError for one without any token."""
    encoded = [list(tokenizer(text)["input_ids"]) for text in texts]
    if not all(encoded):
        raise DataError("A prompt is empty. Give each at least one character.")
    return encoded


def batches_of_equal_length(rows: Iterable[Sequence[int]], batch_rows: int) -> list[Tensor]:
    """Return int64 batches [B, L] of rows of one length, so that nothing is padded and no mask can hide a difference."""
    batches: list[Tensor] = []
    for _, same_length in groupby(sorted(rows, key=len), key=len):
        together = [list(row) for row in same_length]
        batches += [torch.tensor(together[i : i + batch_rows]) for i in range(0, len(together), batch_rows)]
    return batches
