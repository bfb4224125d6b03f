r"""llama.cpp's name of a pre-tokenizer, `tokenizer.ggml.pre`, from a known map. Never a guess.

How text is cut before merges are applied decides every token after it, and llama.cpp has the cuts compiled in, under
names. What `tokenizer.json` does is written down as its steps, and only an exact match has a name:

    ("bytes",)            ByteLevel with `use_regex`: GPT-2's pattern
    ("digits",)           Digits with `individual_digits`
    ("split", pattern)    Split on this regular expression, each match and each gap a piece

Patterns are the ones that the comments of llm_tokenizer_bpe in llama.cpp's src/llama-vocab.cpp quote from the models.
`ignore_merges` (a word that is a token needs no merges) is part of a name there, so it is part of the key here. On the
way back a name gives the same steps: what transformers makes of a GGUF has GPT-2's steps whatever the name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

Step = tuple[str, ...]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED % ("", "", "")
_GPT4O = _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", "{1,3}")

KNOWN: Mapping[tuple[tuple[Step, ...], bool], str] = {
    ((("bytes",),), False): "gpt-2",
    ((("digits",), ("bytes",)), False): "smollm",
    ((("split", _LLAMA3),), True): "llama-bpe",
    ((("split", _LLAMA3),), False): "smaug-bpe",
    ((("split", _QWEN2),), False): "qwen2",
    ((("split", _QWEN35),), False): "qwen35",
    ((("split", _TEKKEN),), True): "tekken",
    ((("split", _GPT4O),), False): "gpt-4o",
}
"""Steps of the pre-tokenizer and `ignore_merges` -> the name in llama.cpp."""


def apply_pre_tokenizer(tokenizer: Tokenizer, name: str) -> bool:
    """Let a byte-level `tokenizer` cut text as llama.cpp does under `name`; False where that is not known here."""
    for (steps, ignore_merges), known in KNOWN.items():
        if known == name:
            parts = [_part(step) for step in steps]
            if ("bytes",) not in steps:
                parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
            tokenizer.pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)
            tokenizer.model.ignore_merges = ignore_merges
            return True
    return False


def _part(step: Step) -> Any:
    match step:
        case ("split", pattern):
            return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
        case ("digits",):
            return pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
