"""The ids a tokenizer reserves: what a document begins with, and what fills rows up."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def bos_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the tokenizer's BOS, or None."""
    return _single(tokenizer.bos_token_id)


def lead_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id a document begins with: BOS, else EOS (GPT-2's habit), else None."""
    bos = bos_token(tokenizer)
    return _single(tokenizer.eos_token_id) if bos is None else bos


def pad_token(tokenizer: PreTrainedTokenizerBase, vocabulary: int | None = None) -> int:
    """Return the id to pad with: PAD, else EOS, else 0, of those below `vocabulary`. Padding is masked: any will do."""
    named = (_single(tokenizer.pad_token_id), _single(tokenizer.eos_token_id))
    return next((token for token in named if token is not None and (vocabulary is None or token < vocabulary)), 0)


def _single(token: object) -> int | None:
    """Return a special token's id; the annotations of transformers allow lists, its tokenizers do not make them."""
    return token if isinstance(token, int) else None
