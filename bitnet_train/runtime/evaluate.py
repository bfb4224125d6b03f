"""Perplexity over windows of text.

    nats       = - sum_t log p(token_t | tokens before it in its window) / number of predicted tokens
    perplexity = exp(nats)

Log-probabilities are float32, their sum float64; only tokens with a label count, so padding and prompts do not.
`text_windows` cuts a text into windows of L tokens that start every L-1 tokens: every token but the first is predicted
exactly once, with up to L-1 tokens before it. (Published WikiText-2 figures mostly use windows without the overlap,
of 2048 tokens; compare figures only at equal windows and tokenizer.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.progress import track

Batch = Mapping[str, Tensor]

_IGNORED = -100


@dataclass(frozen=True)
class Perplexity:
    """Mean negative log-likelihood in nats per token, its exponential, and how many tokens were predicted."""

    nats: float
    perplexity: float
    tokens: int


@torch.no_grad()
def perplexity(model: nn.Module, rows: Batch | Iterable[Batch], *, batch_rows: int = 8) -> Perplexity:
    """Return the perplexity of a causal LM on `rows`.

    rows: one batch or several, each {input_ids, labels, attention_mask (optional)} int64 [R, L]; labels are not
    shifted, -100 = not counted. One batch is taken `batch_rows` at a time. The model is put in eval mode for this and
    left as it was; its memory need is that of `batch_rows * L * vocabulary` logits.
    Raises DataError when no token is labelled. Non-finite logits give `nats = nan` or `inf`, not an error.
    """
    total, tokens = 0.0, 0
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for batch, count in _with_progress(rows, batch_rows):
            total, tokens = total + count_nats(model, batch), tokens + count
    finally:
        for module in training:
            module.training = True
    if tokens == 0:
        raise DataError(
            "Perplexity needs at least one labelled token, and there is none: the rows are empty or masked."
        )
    nats = total / tokens
    return Perplexity(nats, math.exp(nats) if nats < 700 else math.inf, tokens)


def count_nats(model: nn.Module, batch: Batch) -> float:
    """Return the summed negative log-likelihood, in nats, of the labelled tokens of one batch."""
    device = next(model.parameters()).device
    labels = batch["labels"].to(device)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
    logits = model(**inputs, use_cache=False).logits
    total = 0.0
    for row_logits, row_labels in zip(logits, labels, strict=True):  # row by row: no second copy of all logits
        losses = cross_entropy(row_logits[:-1].float(), row_labels[1:], ignore_index=_IGNORED, reduction="none")
        total += float(losses.double().sum())
    return total


def text_windows(
    text: str, tokenizer: PreTrainedTokenizerBase, context_tokens: int, *, max_windows: int | None = None
) -> dict[str, Tensor]:
    """Cut a text, led by BOS where the tokenizer has one, into {input_ids, labels, attention_mask} int64 [R, L].

    The last window is padded on the right. Raises DataError when the text has fewer than two tokens.
    """
    assert context_tokens >= 2
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    starts = range(0, len(ids) - 1, context_tokens - 1)[:max_windows]
    if len(starts) == 0:
        raise DataError(f"A text of {len(ids)} token(s) predicts nothing; perplexity needs at least two.")
    input_ids = torch.zeros(len(starts), context_tokens, dtype=torch.int64)
    labels = torch.full_like(input_ids, _IGNORED)
    for row, start in enumerate(starts):
        part = torch.tensor(ids[start : start + context_tokens])
        input_ids[row, : len(part)] = part
        labels[row, 1 : len(part)] = part[1:]
    attention_mask = (labels != _IGNORED).long()
    attention_mask[:, 0] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def _with_progress(rows: Batch | Iterable[Batch], batch_rows: int) -> Iterator[tuple[Batch, int]]:
    """Yield batches with the number of tokens each predicts, skipping batches that predict none."""
    total = None
    if isinstance(rows, Mapping):
        whole: Batch = {str(name): tensor for name, tensor in rows.items()}
        total = -(-len(whole["input_ids"]) // batch_rows)
        rows = _split(whole, batch_rows)
    for batch in track(rows, "perplexity", total=total):
        count = int((batch["labels"][:, 1:] != _IGNORED).sum())
        if count:
            yield batch, count


def _split(rows: Batch, batch_rows: int) -> Iterator[Batch]:
    for start in range(0, len(rows["input_ids"]), batch_rows):
        yield {name: tensor[start : start + batch_rows] for name, tensor in rows.items()}
