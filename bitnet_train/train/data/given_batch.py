"""A batch of a user's own loader, as the training step reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bitnet_train.errors import DataError
from bitnet_train.train.data.chunk import IGNORED

KEYS = ("input_ids", "labels", "attention_mask", "position_ids", "real_tokens")
_WANTED = (
    "A batch is a mapping with `input_ids`, and `attention_mask` and `labels` where there are any, each an integer "
    "tensor [rows, tokens]; `input_ids` alone will do."
)


def read_batch(given: Any) -> dict[str, Tensor]:
    """Return {input_ids, labels, ...}, each int64 [B, L], of a mapping, of `input_ids` alone, or of a list of that one.

    Labels are not shifted. Where there are none they are the tokens themselves, and -100 where the mask is 0. What the
    step does not read (`token_type_ids`, texts) is left out.

    Raises DataError, which says what a batch is, for anything else.
    """
    batch = {name: given[name] for name in KEYS if name in given} if isinstance(given, Mapping) else _tokens(given)
    if "input_ids" not in batch:
        found = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise DataError(f"A batch without `input_ids` came from the loader: {found}. {_WANTED}")
    for name, values in batch.items():
        _check(name, values, batch)
    batch = {name: values.long() for name, values in batch.items()}
    return batch if "labels" in batch else {**batch, "labels": _labels(batch)}


def _tokens(given: Any) -> dict[str, Any]:
    alone = given[0] if isinstance(given, Sequence) and len(given) == 1 else given
    return {"input_ids": alone} if isinstance(alone, Tensor) else {}


def _check(name: str, values: Any, batch: Mapping[str, Any]) -> None:
    if not isinstance(values, Tensor):
        raise DataError(f"`{name}` of a batch is a {type(values).__name__}, not a tensor. {_WANTED}")
    if values.ndim != 2 or values.is_floating_point() or values.shape != batch["input_ids"].shape:
        raise DataError(f"`{name}` of a batch is {values.dtype} {list(values.shape)}. {_WANTED}")


def _labels(batch: Mapping[str, Tensor]) -> Tensor:
    mask = batch.get("attention_mask", batch.get("real_tokens"))
    tokens = batch["input_ids"]
    return tokens if mask is None else torch.where(mask.bool(), tokens, IGNORED)
