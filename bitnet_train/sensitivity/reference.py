"""What the float model predicts on a few rows, kept, so that every trial costs one forward pass and not two.

    kl             mean over tokens of sum_v p(v) (log p(v) - log q(v)), nats; p the float model, q the changed one
    top1           share of tokens where both hold the same token likeliest
    perplexity     exp of the mean negative log-likelihood of the text

Kept are float32 log-probabilities [T, V]: 100 MB for 512 tokens of a vocabulary of 49,152.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitnet_train.errors import DataError
from bitnet_train.evaluate.batches import IGNORED, Batch, batches, evaluation_mode, logits_of, vocabulary_of

_POSITIONS = 256  # whose log-probabilities are held at once


@dataclass(frozen=True)
class Fidelity:
    """How close predictions are to the float model's: nats per token, a share, and the perplexity of the text."""

    kl: float
    top1: float
    perplexity: float


@dataclass(frozen=True)
class _Kept:
    batch: Batch
    places: Tensor
    """Positions with a labelled successor, bool [R, L - 1]."""
    labels: Tensor
    log_probs: Tensor


class Reference:
    """The float model's predictions on `rows`, as `evaluate.perplexity` takes them; DataError without a label."""

    def __init__(self, model: nn.Module, rows: Batch) -> None:
        self._kept: list[_Kept] = []
        with evaluation_mode(model):
            for batch in batches(rows, vocabulary=vocabulary_of(model)):
                places = batch["labels"][:, 1:] != IGNORED
                if places.any():
                    log_probs = _logits(model, batch, places).log_softmax(dim=-1)
                    self._kept.append(_Kept(batch, places, batch["labels"][:, 1:][places], log_probs))
        if not self._kept:
            raise DataError("The scan needs at least one labelled token, and there is none: the rows are empty.")

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return sum(len(kept.labels) for kept in self._kept)

    @property
    def perplexity(self) -> float:
        """The float model's own perplexity."""
        nats = -sum(float(_chosen(kept.log_probs, kept.labels).double().sum()) for kept in self._kept)
        return math.exp(nats / self.tokens)

    def measure(self, model: nn.Module) -> Fidelity:
        """Compare a model, the same one with other weights, on the same rows."""
        sums = torch.zeros(3, dtype=torch.float64)
        with evaluation_mode(model):
            for kept in self._kept:
                logits = _logits(model, kept.batch, kept.places)
                for some in torch.arange(len(logits)).split(_POSITIONS):
                    sums += _sums(kept.log_probs[some], logits[some].log_softmax(dim=-1), kept.labels[some])
        kl, agreed, nats = (float(value) / self.tokens for value in sums)
        return Fidelity(kl, agreed, math.exp(nats) if nats < 700 else math.inf)


def _logits(model: nn.Module, batch: Batch, places: Tensor) -> Tensor:
    return logits_of(model, batch)[:, :-1][places].float().cpu()


def _sums(ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
    """Summed KL, agreements and negative log-likelihood of some positions, float64 [3]."""
    kl = (ours.exp() * (ours - theirs)).sum(dim=-1).double().sum()
    agreed = (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).double().sum()
    return torch.stack([kl, agreed, -_chosen(theirs, labels).double().sum()])


def _chosen(log_probs: Tensor, labels: Tensor) -> Tensor:
    return log_probs.gather(1, labels.cpu().unsqueeze(1)).squeeze(1)
