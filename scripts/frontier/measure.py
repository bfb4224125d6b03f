"""How much of the original a model keeps: `bitnet_train.evaluate`'s own comparison, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from bitnet_train.evaluate.comparison import compare
from scripts.frontier.texts import Text


def quality(model: nn.Module, original: nn.Module, texts: Sequence[Text], label: str) -> dict[str, dict[str, Any]]:
    """Return perplexity, its ratio to the original's, KL from the original in nats, and equal first choices."""
    found = {}
    for text in texts:
        compared = compare(model, original, text.rows, description=f"{label}, {text.name}")
        found[text.name] = {
            "perplexity": compared.student.perplexity,
            "ratio": compared.perplexity_ratio,
            "kl_nats": compared.kl,
            "top1_agreement": compared.top1_agreement,
        }
    return found


def perplexities(original: nn.Module, texts: Sequence[Text], label: str) -> dict[str, float]:
    """Return the original's own perplexity by text."""
    return {
        text.name: compare(original, None, text.rows, description=f"{label}, {text.name}").student.perplexity
        for text in texts
    }
