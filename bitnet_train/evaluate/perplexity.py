"""Perplexity of one model over rows of tokens.

    nats       = - sum_t log p(token_t | tokens before it in its row) / number of predicted tokens
    perplexity = exp(nats)

Log-probabilities are float32, their sum float64; only tokens with a label count, so padding and prompts do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.nn.functional import cross_entropy

from bitnet_train.errors import DataError
from bitnet_train.evaluate.batches import (
    IGNORED,
    Batch,
    batches,
    count_labels,
    evaluation_mode,
    logits_of,
    vocabulary_of,
)
from bitnet_train.evaluate.measured import Perplexity
from bitnet_train.progress import track


def perplexity(model: nn.Module, rows: Batch | Iterable[Batch], *, batch_rows: int | None = None) -> Perplexity:
    """Return the perplexity of a causal LM on `rows`.

    rows: one batch or several, each {input_ids, labels, attention_mask (optional)} int64 [R, L]; labels are not
    shifted, -100 = not counted. One batch is taken `batch_rows` at a time (see `batches`). The model is put in
    evaluation mode for this and left as it was; its memory need is that of one batch of logits.
    Raises DataError when no token is labelled. Non-finite logits give `nats = nan` or `inf`, not an error.
    """
    parts = [batch for batch in batches(rows, batch_rows, vocabulary_of(model)) if count_labels(batch)]
    tokens = sum(map(count_labels, parts))
    if tokens == 0:
        raise no_labels()
    with evaluation_mode(model):
        nats = sum(count_nats(model, batch) for batch in track(parts, "perplexity", total=len(parts))) / tokens
    return Perplexity(nats, exponential(nats), tokens)


def count_nats(model: nn.Module, batch: Batch) -> float:
    """Return the summed negative log-likelihood, in nats, of the labelled tokens of one batch."""
    logits = logits_of(model, batch)
    labels = batch["labels"].to(logits.device)
    total = 0.0
    for row_logits, row_labels in zip(logits, labels, strict=True):  # row by row: no second copy of all logits
        losses = cross_entropy(row_logits[:-1].float(), row_labels[1:], ignore_index=IGNORED, reduction="none")
        total += float(losses.double().sum())
    return total


def exponential(nats: float) -> float:
    """Return e to the power of `nats`, infinity where that is no float."""
    return math.exp(nats) if not nats >= 700 else math.inf


def no_labels() -> DataError:
    """The error of rows that predict nothing."""
    return DataError("Perplexity needs at least one labelled token, and there is none: the rows are empty or masked.")
