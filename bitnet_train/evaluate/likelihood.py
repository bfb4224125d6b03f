"""Log-likelihood of continuations of contexts, in batches: the operation behind multiple choice and lm-eval.

    log p(continuation | context) = sum_i log p(c_i | context, c_<i)

Rows are sorted by length, padded on the right (no row of a causal model sees what is right of it), and cut on the left
to the model's context, as EleutherAI's lm-evaluation-harness does. Log-probabilities are float32, their sum float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from bitnet_train.evaluate.batches import evaluation_mode, logits_of, vocabulary_of
from bitnet_train.progress import track

_MAX_ROWS = 16
_LOGIT_BYTES = 1 << 29  # of one batch


@dataclass(frozen=True)
class Pair:
    """Token ids of a context, at least one, and of a continuation, at least one."""

    context: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a continuation in nats, and whether greedy decoding would have written it."""

    log_prob: float
    is_greedy: bool


def encode_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Pair:
    """Encode both together and cut where the context ends; an empty context is the BOS, else the end-of-text token.

    White space at the end of the context counts as the beginning of the continuation, as in lm-eval, because tokens
    begin with their space.
    """
    kept = context.rstrip()
    if not kept:
        start, ids = prefix_id(tokenizer), _encode(tokenizer, context + continuation, special=False)
        return Pair(ids[:1], ids[1:]) if start is None or ids[:1] == [start] else Pair([start], ids)
    before = _encode(tokenizer, kept, special=True)
    together = _encode(tokenizer, context + continuation, special=True)
    return Pair(before, together[len(before) :])


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that stands before a text without a context: BOS, else the end-of-text token."""
    found: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return found


def log_likelihoods(
    model: nn.Module,
    pairs: Sequence[Pair],
    max_tokens: int,
    *,
    max_rows: int = _MAX_ROWS,
    description: str = "scoring",
) -> list[Likelihood]:
    """Return the likelihood of each pair, in the order given; contexts are cut on the left to `max_tokens` in all.

    Up to `max_rows` rows are computed together, as many as keep float32 logits within 512 MiB.
    """
    rows = [_cut(pair, max_tokens) for pair in pairs]
    found: dict[int, Likelihood] = {}
    groups = list(_groups([len(ids) for ids, _ in rows], vocabulary_of(model), max_rows))
    with evaluation_mode(model):
        for group in track(groups, description, total=len(groups)):
            logits = logits_of(model, _padded([rows[index][0] for index in group]))
            for place, index in enumerate(group):
                ids, count = rows[index]
                found[index] = _likelihood(logits[place, len(ids) - 1 - count : len(ids) - 1], ids[-count:])
    return [found[index] for index in range(len(pairs))]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=special, verbose=False)
    return list(encoded["input_ids"])


def _cut(pair: Pair, max_tokens: int) -> tuple[list[int], int]:
    """Return the ids of a row and how many of its last ones are scored."""
    assert pair.context, "a context has at least one token"
    assert pair.continuation, "a continuation has at least one token"
    ids = [*pair.context, *pair.continuation][-(max_tokens + 1) :]  # the last one is predicted and never an input
    return ids, min(len(pair.continuation), len(ids) - 1)


def _groups(lengths: list[int], vocabulary: int, max_rows: int) -> Iterator[list[int]]:
    """Yield indices of rows to compute together, the longest first, so that too little memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        fit = _LOGIT_BYTES // max(1, 4 * lengths[order[start]] * vocabulary)
        count = max(1, min(max_rows, fit))
        yield order[start : start + count]
        start += count


def _padded(rows: list[list[int]]) -> dict[str, Tensor]:
    """Return rows without their last token as {input_ids, attention_mask} int64 [R, L], padded on the right."""
    length = max(len(row) for row in rows) - 1
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row) - 1] = torch.tensor(row[:-1])
        mask[place, : len(row) - 1] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _likelihood(logits: Tensor, expected: list[int]) -> Likelihood:
    """Score `expected` int [C] by the logits [C, vocabulary] that predict it."""
    labels = torch.tensor(expected, device=logits.device)
    log_probs = logits.float().log_softmax(dim=-1)
    chosen = log_probs.gather(1, labels[:, None])
    return Likelihood(float(chosen.double().sum()), bool((log_probs.argmax(dim=-1) == labels).all()))
