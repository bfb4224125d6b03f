"""Several ways to compute logits over the same windows of tokens: how far apart they are.

A run is a function from token ids to float32 logits [T, V]; of a pair (p, q) the mean of KL(p || q) is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

Logits = Callable[[list[int]], np.ndarray]

PAIRS = (
    ("llama_cpp", "ours"),
    ("float", "ours"),
    ("float", "llama_cpp"),
    ("float", "dense"),
    ("rounded", "llama_cpp"),
)
"""What `prove` compares, named there."""


@dataclass
class Sums:
    """What is added up over windows: of each run its nats, of each pair its divergence and its equal choices."""

    tokens: int = 0
    nats: dict[str, float] = field(default_factory=dict)
    divergence: dict[str, float] = field(default_factory=dict)
    same_choice: dict[str, int] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, log_p: dict[str, torch.Tensor], targets: torch.Tensor) -> None:
        """Add one window: log-probabilities [T, V] of every run, and the next tokens [T]."""
        self.tokens += len(targets)
        for name, values in log_p.items():
            nats = float(-values.gather(1, targets[:, None]).double().sum())
            self.nats[name] = self.nats.get(name, 0.0) + nats
        for pair in PAIRS:
            p, q = (log_p[name] for name in pair)
            key = " from ".join(reversed(pair))
            self.divergence[key] = self.divergence.get(key, 0.0) + float((p.exp() * (p - q)).double().sum())
            self.same_choice[key] = self.same_choice.get(key, 0) + int((p.argmax(1) == q.argmax(1)).sum())
            self.largest[key] = max(self.largest.get(key, 0.0), float((p - q).abs().max()))

    def result(self) -> dict[str, Any]:
        """Return perplexities, mean divergences in nats a token, shares of equal choices, largest |log p - log q|."""
        return {
            "tokens": self.tokens,
            "perplexity": {name: float(np.exp(nats / self.tokens)) for name, nats in self.nats.items()},
            "kl_nats": {pair: total / self.tokens for pair, total in self.divergence.items()},
            "top1_agreement": {pair: count / self.tokens for pair, count in self.same_choice.items()},
            "largest_nats": self.largest,
        }


def windows(ids: list[int], size: int, num_tokens: int) -> Iterator[list[int]]:
    """Cut ids into windows of `size` that start every `size - 1`, until `num_tokens` of them are predicted."""
    for start in range(0, num_tokens, size - 1):
        yield ids[start : min(start + size, num_tokens + 1)]


def compare_logits(runs: dict[str, Logits], texts: Iterator[list[int]], label: str) -> dict[str, Any]:
    """Run all over the same windows."""
    sums = Sums()
    for number, ids in enumerate(texts):
        log_p = {name: torch.from_numpy(run(ids)[:-1]).log_softmax(-1) for name, run in runs.items()}
        sums.add(log_p, torch.tensor(ids[1:]))
        if number % 10 == 0:
            print(f"{label}: {sums.tokens} tokens, {sums.result()['kl_nats']}", flush=True)
    return sums.result()


def torch_logits(model: PreTrainedModel) -> Logits:
    """Return a function from ids to logits of a model of transformers."""

    @torch.no_grad()
    def run(ids: list[int]) -> np.ndarray:
        return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    return run
