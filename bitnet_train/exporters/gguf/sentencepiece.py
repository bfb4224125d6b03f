"""A SentencePiece-like tokenizer: BPE over text whose spaces are low lines, with a byte token for what it lacks.

llama.cpp has no list of merges for these. It joins the two neighbours whose union is the token of the highest score, so
the score of a token is minus the rank of the first merge that makes it. That gives the same tokens as merging by rank
where every way to cut a token in two tokens is a merge, and the merges of one token follow each other. Both is so for
tokenizers that were converted from SentencePiece (Llama 2, Mistral, Gemma), and it is checked. Runs of one character
are an exception without consequence: their merges alternate, and either way a run grows from the left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.pre_tokenizer import flatten
from bitnet_train.exporters.gguf.special_tokens import SpecialTokens
from bitnet_train.exporters.gguf.vocabulary import (
    TokenKind,
    Vocabulary,
    added_token_notes,
    list_merges,
    list_tokens,
)
from bitnet_train.exporters.options import ExportOptions

PRE_TOKENIZER = "default"
"""`tokenizer.ggml.pre` of such a file; as `export.pre_tokenizer` it accepts tokens that may differ in places."""
_LOW_LINE = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def read_sentencepiece(
    tokenizer: Mapping[str, Any], vocab_size: int, special: SpecialTokens, options: ExportOptions
) -> Vocabulary:
    """Read such a tokenizer. Raises FormatError where llama.cpp would make other tokens of the same text."""
    if not tokenizer["model"].get("byte_fallback"):
        raise FormatError(
            "The tokenizer is BPE without bytes for unknown characters (`byte_fallback`), which llama.cpp does not "
            "have. Use another `export.format`."
        )
    tokens, kinds = list_tokens(tokenizer, vocab_size)
    scores, difference = _scores(tokenizer, tokens, kinds)
    if difference and options.pre_tokenizer != PRE_TOKENIZER:
        raise FormatError(
            f"llama.cpp would make other tokens than this tokenizer: {difference}. To accept a difference in rare "
            f"places, set `export.pre_tokenizer={PRE_TOKENIZER}`."
        )
    unknown = tokenizer["model"].get("unk_token")
    for row, token in enumerate(tokens):
        if kinds[row] is TokenKind.NORMAL and _BYTE.fullmatch(token):
            kinds[row] = TokenKind.BYTE
        elif token == unknown:
            kinds[row] = TokenKind.UNKNOWN
    prefix, notes = _space_before_text(tokenizer, tokens, kinds)
    notes += [difference] if difference else []
    return Vocabulary(
        "llama",
        PRE_TOKENIZER,
        tokens,
        kinds,
        scores=scores,
        space_before_text=prefix,
        special=special,
        notes=notes + added_token_notes(tokenizer),
    )


def _scores(tokenizer: Mapping[str, Any], tokens: list[str], kinds: list[TokenKind]) -> tuple[list[float], str]:
    """Scores of all tokens, and where joining by score would differ from merging by rank."""
    merges = list_merges(tokenizer)
    normal = {token for token, kind in zip(tokens, kinds, strict=True) if kind is TokenKind.NORMAL}
    rank: dict[str, int] = {}
    last, difference = "", ""
    for number, (left, right) in enumerate(merges):
        made = left + right
        if made in rank and made != last and made in normal and not _is_run(made) and not difference:
            difference = f"the merges that make {made!r} do not follow each other"
        rank.setdefault(made, number)
        last = made
    missing = next(_missing_merges(normal, rank, set(merges)), None)
    if missing and not difference:
        difference = f"{missing[0]!r} and {missing[1]!r} are tokens, and so is their union, but that is no merge"
    return [-float(rank.get(token, 0)) for token in tokens], difference


def _is_run(token: str) -> bool:
    return len(set(token)) == 1


def _missing_merges(
    normal: set[str], rank: Mapping[str, int], merges: set[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    for token in sorted(rank, key=rank.__getitem__):
        if token not in normal:
            continue
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair[0] in normal and pair[1] in normal and pair not in merges:
                yield pair


def _space_before_text(
    tokenizer: Mapping[str, Any], tokens: list[str], kinds: list[TokenKind]
) -> tuple[bool, list[str]]:
    """Whether a space is put before a text, and what llama.cpp does otherwise around special tokens."""
    prepends, replaces = False, False
    notes: list[str] = []
    for part in flatten(tokenizer.get("normalizer"), "normalizers"):
        match part:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prepends = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                replaces = True
            case _:
                raise _unknown_step(part)
    for part in flatten(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        match part:
            case {"type": "Metaspace", "replacement": "\u2581"}:
                replaces, prepends = True, part.get("prepend_scheme", "always") != "never"
                _check_words(part, tokens, kinds)
                if part.get("prepend_scheme") == "first":
                    notes.append(
                        "llama.cpp puts a space also before text that begins with one or follows a special token"
                    )
            case {"type": "Split", "pattern": {"String": " "}} if replaces:
                pass  # there is no space left to split at
            case _:
                raise _unknown_step(part)
    if not replaces:
        raise FormatError("The tokenizer does not write a space as a low line, as llama.cpp does for this kind.")
    return prepends, notes


def _check_words(part: Mapping[str, Any], tokens: list[str], kinds: list[TokenKind]) -> None:
    """Metaspace with `split` cuts before every low line; a token that has one inside could then never be made."""
    across = [
        token for token, kind in zip(tokens, kinds, strict=True) if kind is TokenKind.NORMAL and _LOW_LINE in token[1:]
    ]
    if part.get("split", True) and across:
        raise FormatError(
            f"The tokenizer cuts text at spaces (Metaspace with `split`), so it never makes its token {across[0]!r}; "
            "llama.cpp would. Use another `export.format`."
        )


def _unknown_step(part: Mapping[str, Any]) -> FormatError:
    return FormatError(
        f"The tokenizer has a step {part.get('type')} ({ {key: part[key] for key in part if key != 'type'} }), which "
        "llama.cpp does not do for this kind of tokenizer. Use another `export.format`."
    )
