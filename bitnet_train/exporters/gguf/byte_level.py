"""A byte-level BPE tokenizer (GPT-2, Llama 3, Qwen, SmolLM): model "gpt2" of a GGUF, with merges in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.pre_tokenizer import flatten, pre_tokenizer_name
from bitnet_train.exporters.gguf.special_tokens import SpecialTokens
from bitnet_train.exporters.gguf.vocabulary import Vocabulary, added_token_notes, list_merges, list_tokens
from bitnet_train.exporters.options import ExportOptions


def read_byte_level(
    tokenizer: Mapping[str, Any], vocab_size: int, special: SpecialTokens, options: ExportOptions
) -> Vocabulary:
    """Read such a tokenizer. Raises FormatError for a step that llama.cpp does not do, or has no known name for."""
    normalizers = [str(part.get("type")) for part in flatten(tokenizer.get("normalizer"), "normalizers")]
    if set(normalizers) - {"NFC"}:
        raise FormatError(
            f"The tokenizer changes text first ({', '.join(normalizers)}), and llama.cpp does not. "
            "Use another `export.format`."
        )
    pre = options.pre_tokenizer or pre_tokenizer_name(tokenizer)
    tokens, kinds = list_tokens(tokenizer, vocab_size)
    merges = [f"{left} {right}" for left, right in list_merges(tokenizer)]
    if not merges:
        raise FormatError("The tokenizer has no merges, and llama.cpp loads no byte-level tokenizer without any.")
    notes = added_token_notes(tokenizer)
    if normalizers:
        notes.append("llama.cpp does not compose characters (NFC) before it makes tokens")
    return Vocabulary("gpt2", pre, tokens, kinds, merges, special=special, notes=notes)
