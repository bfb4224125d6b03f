"""What a ratio does to a text, from a finished run: the arithmetic of it, what was measured, what the model wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from bitnet_train.run.result import RunFacts, TextResult

TOKENS = 10


def ratio_lines(result: Path) -> list[str]:
    """Return the section on why the ratio of a result file reads as it does."""
    return list(_lines(RunFacts.from_dict(json.loads(result.read_text(encoding="utf-8")), str(result))))


def _lines(facts: RunFacts) -> Iterator[str]:
    ratio = facts.perplexity.ratio
    held_out = next(text for text in facts.texts if text.held_out)
    worst = max(facts.texts, key=lambda text: text.ratio or 0.0)
    yield f"## Why a ratio of {ratio:.2f} reads badly"
    yield ""
    yield (f"`{facts.recipe}` ends at {ratio:.2f}, which sounds like a model a little worse. It is not:")
    yield ""
    yield (
        f"- **A ratio is a factor a token, and a text has many.** The loss is log {ratio:.2f} = {math.log(ratio):.2f} "
        f"nats higher a token: on average (geometric) the right next token has {1 / ratio:.0%} of the probability that "
        f"the original gave it. Of {TOKENS} tokens in a row it is {ratio**-TOKENS:.0e} of it."
    )
    yield (
        f"- **Most next words are others.** Both models hold the same token likeliest in {_agreement(held_out):.0%} of "
        "the places. A text goes on from its own words, so after the first wrong one it is another text."
    )
    yield (
        "- **It is an average.** Line ends, brackets and frequent words are kept and make the average good; names, "
        "numbers and what the prompt asked for are lost. `evaluate` shows accuracy by how rare a token is."
    )
    yield (
        f"- **It is of text like the training text.** On `{worst.name}`, in windows of {worst.window_tokens:,} tokens, "
        f"the same model is at {worst.ratio:.2f}, with the same likeliest token in {_agreement(worst):.0%}."
    )
    yield ""
    yield f"`{facts.continued.prompt}` goes on:"
    yield ""
    for who, text in (("original", facts.continued.continuations.full_precision), ("1-bit", _packed(facts))):
        yield from (f"**{who}**:", "", "```text", *text.strip().splitlines(), "```", "")
    yield (
        "What helps: more planes a weight (`smollm2_62mb`, `smollm2_80mb`), more tokens, or a narrow task trained on "
        "top; [choose a recipe](choose.md) has what each came to."
    )


def _packed(facts: RunFacts) -> str:
    return facts.continued.continuations.packed


def _agreement(text: TextResult) -> float:
    assert text.top1_agreement is not None
    return text.top1_agreement
