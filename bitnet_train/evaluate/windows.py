"""Cut a text into rows of token ids to score.

    overlap      windows of L tokens that start every L-1 tokens, led by BOS where the tokenizer has one: every token of
                 the text is predicted exactly once, with up to L-1 tokens before it. The last window is padded.
    no overlap   windows of L tokens side by side, an incomplete last one dropped, with the special tokens that the
                 tokenizer itself puts around a text: how WikiText-2 figures are published (GPTQ, arXiv 2210.17323, and
                 what quotes it, with L = 2048). The first token of each window is not predicted.

Both make the first tokens of a window guess without context, so figures compare at equal windows and tokenizer only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.evaluate.batches import IGNORED


def windows(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    window_tokens: int,
    *,
    max_windows: int | None = None,
    overlap: bool = True,
) -> dict[str, Tensor]:
    """Cut a text into {input_ids, labels, attention_mask} int64 [R, `window_tokens`]; labels are not shifted.

    Only the beginning of the text that `max_windows` windows need counts. Raises DataError when the text is too short
    to predict a token, or, without overlap, to fill one window.
    """
    assert window_tokens >= 2
    return (
        _overlapping(text, tokenizer, window_tokens, max_windows)
        if overlap
        else _published(text, tokenizer, window_tokens, max_windows)
    )


def text_windows(
    text: str, tokenizer: PreTrainedTokenizerBase, context_tokens: int, *, max_windows: int | None = None
) -> dict[str, Tensor]:
    """Return overlapping `windows` of `context_tokens` tokens."""
    return windows(text, tokenizer, context_tokens, max_windows=max_windows)


def _overlapping(
    text: str, tokenizer: PreTrainedTokenizerBase, window_tokens: int, max_windows: int | None
) -> dict[str, Tensor]:
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    starts = range(0, len(ids) - 1, window_tokens - 1)[:max_windows]
    if len(starts) == 0:
        raise DataError(f"A text of {len(ids)} token(s) predicts nothing; perplexity needs at least two.")
    input_ids = torch.zeros(len(starts), window_tokens, dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    for row, start in enumerate(starts):
        part = torch.tensor(ids[start : start + window_tokens])
        input_ids[row, : len(part)] = part
        labels[row, 1 : len(part)] = part[1:]
    attention_mask = (labels != IGNORED).long()
    attention_mask[:, 0] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def _published(
    text: str, tokenizer: PreTrainedTokenizerBase, window_tokens: int, max_windows: int | None
) -> dict[str, Tensor]:
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"], dtype=torch.int64)
    count = min(len(ids) // window_tokens, max_windows or len(ids))
    if count == 0:
        raise DataError(
            f"A text of {len(ids)} tokens fills no window of {window_tokens}, and without overlap an incomplete window "
            "is dropped. Lower `evaluate.window_tokens`, or set `evaluate.window_overlap=true`."
        )
    input_ids = ids[: count * window_tokens].reshape(count, window_tokens)
    return {"input_ids": input_ids, "labels": input_ids.clone(), "attention_mask": torch.ones_like(input_ids)}
