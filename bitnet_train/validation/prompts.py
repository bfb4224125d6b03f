"""Text to validate with that every machine has: a few prompts, and the language reference inside CPython.

`pydoc_data.topics` holds about 460 kB of prose, the text behind `help("while")`. The standard-library corpus of this
package leaves that folder out, so the bundled model has never seen it: it is held-out text.

Rows of a batch are equally long, so nothing is padded and no mask can hide a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

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

_PROMPT_TOKENS = 16  # of the prompts that are cut from the held-out text
_ROW_TOKENS = 256  # of the rows that the perplexity is taken over
_PROMPT_ROWS = 32
_TEXT_ROWS = 2
_SEED = 7


@dataclass(frozen=True)
class Texts:
    """Prompts as int64 [B, L] batches, and batches of rows (`input_ids`, `labels`, `attention_mask`) for perplexity."""

    prompts: list[Tensor]
    rows: list[dict[str, Tensor]]


def validation_texts(
    tokenizer: PreTrainedTokenizerBase | None,
    vocabulary_size: int,
    *,
    prompts: Sequence[str] | None,
    num_prompts: int,
    num_tokens: int,
    longest_row: int,
) -> Texts:
    """Encode the prompts and cut `num_tokens` tokens of held-out text into rows of at most `longest_row` tokens.

    Default prompts are filled up with pieces of the held-out text to `num_prompts`. Without a tokenizer everything is
    random token ids below `vocabulary_size`. Raises DataError for an empty prompt, or prompts without a tokenizer.
    """
    rows = _encoded_prompts(tokenizer, prompts)[: num_prompts if prompts is None else None]
    num_missing = max(0, num_prompts - len(rows)) if prompts is None else 0
    text = _held_out_tokens(tokenizer, vocabulary_size, num_tokens + num_missing * _PROMPT_TOKENS)
    rows += _windows(text[num_tokens:], _PROMPT_TOKENS)[:num_missing]
    row_tokens = min(_ROW_TOKENS, num_tokens, longest_row)
    text_batches = _batches(_windows(text[:num_tokens], row_tokens), _TEXT_ROWS)
    return Texts(_batches(rows, _PROMPT_ROWS), [_labelled(batch) for batch in text_batches])


def _encoded_prompts(tokenizer: PreTrainedTokenizerBase | None, prompts: Sequence[str] | None) -> list[list[int]]:
    if tokenizer is None:
        if prompts is not None:
            raise DataError("The folder has no tokenizer, so `prompts` cannot be encoded. Leave them out.")
        return []
    rows = [list(tokenizer(text)["input_ids"]) for text in (PROMPTS if prompts is None else prompts)]
    if not rows or not all(rows):
        raise DataError("A prompt is empty. Give at least one prompt, and each at least one character.")
    return rows


def _held_out_tokens(tokenizer: PreTrainedTokenizerBase | None, vocabulary_size: int, num_tokens: int) -> list[int]:
    if tokenizer is None:
        generator = torch.Generator().manual_seed(_SEED)
        return torch.randint(0, vocabulary_size, (num_tokens,), generator=generator).tolist()
    token_ids: list[int] = []
    for paragraph in _paragraphs():
        if len(token_ids) >= num_tokens:
            break
        token_ids += tokenizer(paragraph, add_special_tokens=False)["input_ids"]
    return token_ids[:num_tokens]


def _paragraphs() -> Iterable[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("This Python came without `pydoc_data`, the held-out text of validation.") from error
    for name in sorted(topics):
        yield from (f"{paragraph}\n\n" for paragraph in topics[name].split("\n\n"))


def _windows(token_ids: Sequence[int], num_tokens: int) -> list[list[int]]:
    starts = range(0, len(token_ids) - num_tokens + 1, num_tokens)
    return [list(token_ids[start : start + num_tokens]) for start in starts]


def _batches(rows: Iterable[Sequence[int]], batch_rows: int) -> list[Tensor]:
    batches: list[Tensor] = []
    for _, equally_long in groupby(sorted(rows, key=len), key=len):
        together = list(equally_long)
        batches += [torch.tensor(together[i : i + batch_rows]) for i in range(0, len(together), batch_rows)]
    return batches


def _labelled(token_ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": token_ids, "labels": token_ids, "attention_mask": torch.ones_like(token_ids)}
