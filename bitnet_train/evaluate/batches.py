"""Rows in batches that fit in memory, and models in evaluation mode while they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bitnet_train.model.config_fields import text_config

Batch = Mapping[str, Tensor]

IGNORED = -100  # the label of a token that does not count

_MAX_ROWS = 8
_LOGIT_BYTES = 1 << 29  # of one model's logits in one batch


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Put models in evaluation mode without gradients; every module gets its own mode back."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def batches(rows: Batch | Iterable[Batch], batch_rows: int | None = None, vocabulary: int = 0) -> list[Batch]:
    """Return `rows` as batches: one batch is taken `batch_rows` rows at a time, several are left as they are.

    `batch_rows` None takes as many as keep float32 logits [R, L, vocabulary] within 512 MiB, 1 to 8 of them.
    """
    if not isinstance(rows, Mapping):
        return list(rows)
    whole: Batch = {str(name): tensor for name, tensor in rows.items()}
    count, length = whole["input_ids"].shape
    if batch_rows is None:
        batch_rows = max(1, min(_MAX_ROWS, _LOGIT_BYTES // max(1, 4 * length * vocabulary)))
    return [
        {name: tensor[start : start + batch_rows] for name, tensor in whole.items()}
        for start in range(0, count, batch_rows)
    ]


def count_labels(batch: Batch) -> int:
    """Return how many tokens a batch predicts."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits of a causal LM, in its own type, [R, L, vocabulary] on its own device."""
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask") if name in batch}
    return model(**inputs, use_cache=False).logits


def vocabulary_of(model: nn.Module) -> int:
    """Return the width of a causal LM's logits as its configuration has it, 0 where it has none."""
    return int(getattr(text_config(model), "vocab_size", 0) or 0)
