"""Figures of one text, and of two that answer the same prompt.

repetition      share of 4-grams of tokens that occurred before in the same text
common_prefix   tokens that two texts begin with alike
rouge_l         F1 of the longest common subsequence of lower-case words (Lin 2004, without stemming)
token_f1        F1 of the bags of words
parses          the code so far is Python; a last line that the token limit cut is left out
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Sequence

_NGRAM = 4
_WORD = re.compile(r"\w+")


def repetition(token_ids: Sequence[int]) -> float:
    """Return the share of repeated 4-grams, 0 for texts too short to have one."""
    grams = [tuple(token_ids[start : start + _NGRAM]) for start in range(len(token_ids) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def rouge_l(text: str, reference: str) -> float:
    """Return ROUGE-L F1 of a text against a reference, 0 to 1; 0 when either has no word."""
    ours, theirs = _words(text), _words(reference)
    return _f1(_common_subsequence(ours, theirs), len(ours), len(theirs))


def token_f1(text: str, reference: str) -> float:
    """Return F1 of the words of both without their order, 0 to 1; 0 when either has no word."""
    ours, theirs = _words(text), _words(reference)
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def parses(prompt: str, text: str, *, ended: bool) -> bool:
    """Return whether prompt and text are Python and the text is not blank.

    Unless the text `ended`, its last line may be cut by the token limit and is left out.
    """
    if not text.strip():
        return False
    code = prompt + (text if ended else text.rpartition("\n")[0] + "\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for at, candidate in enumerate(other, start=1):
            above = row[at]
            row[at] = diagonal + 1 if word == candidate else max(row[at], row[at - 1])
            diagonal = above
    return row[-1]


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0
