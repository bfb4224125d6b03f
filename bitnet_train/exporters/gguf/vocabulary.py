"""What a GGUF says of a tokenizer: a token and its kind for each row of the embedding, merges or scores, special ones.

Kinds of a token: control (special: never made from text that a user types), user-defined (an added token that is cut
out of text first), byte, unknown, unused (rows of the embedding that no token has), normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from gguf import GGUFWriter

_LOW_LINE = "\u2581"


class TokenKind(IntEnum):
    """`enum llama_token_type` of llama.cpp."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """What the file says of its tokenizer. `tokens` and `kinds` have one entry for every row of the embedding."""

    model: str
    pre: str = ""
    tokens: list[str] = field(default_factory=list)
    kinds: list[TokenKind] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    space_before_text: bool | None = None
    special: SpecialTokens = field(default_factory=SpecialTokens)
    notes: list[str] = field(default_factory=list)


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the keys of the tokenizer."""
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.model == "no_vocab":
        return
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    writer.add_token_merges(vocabulary.merges)
    if vocabulary.space_before_text is not None:
        writer.add_add_space_prefix(vocabulary.space_before_text)
    vocabulary.special.add(writer)


def list_tokens(tokenizer: Mapping[str, Any], vocab_size: int) -> tuple[list[str], list[TokenKind]]:
    """Return the token of each row of the embedding and its kind, as far as a vocabulary and its added tokens say.

    Raises FormatError when there are more tokens than rows.
    """
    tokens: dict[int, str] = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(tokens, TokenKind.NORMAL)
    for added in tokenizer.get("added_tokens") or []:
        number, text, special = int(added["id"]), str(added["content"]), bool(added["special"])
        tokens[number] = text if special else text.replace(_LOW_LINE, " ")
        kinds[number] = TokenKind.CONTROL if special else TokenKind.USER_DEFINED
    if max(tokens, default=0) >= vocab_size:
        raise FormatError(
            f"The tokenizer has a token {max(tokens)}, but the embedding has {vocab_size} rows. "
            "Export the model again with the tokenizer it was trained with."
        )
    rows = range(vocab_size)
    return [tokens.get(row, f"[PAD{row}]") for row in rows], [kinds.get(row, TokenKind.UNUSED) for row in rows]


def list_merges(tokenizer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges in order; `tokenizer.json` has them as pairs or as two words with a space between."""
    merges = tokenizer["model"].get("merges") or []
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in pairs]


def added_token_notes(tokenizer: Mapping[str, Any]) -> list[str]:
    """Say which added tokens take more than their own text, which llama.cpp does not do."""
    greedy = [
        str(added["content"])
        for added in tokenizer.get("added_tokens") or []
        if added.get("lstrip") or added.get("rstrip") or added.get("single_word")
    ]
    return [f"llama.cpp does not take the spaces beside {greedy[0]!r} into it, as the tokenizer says"] if greedy else []
