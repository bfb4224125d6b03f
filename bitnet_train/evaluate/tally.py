"""What one model's predictions of many tokens add up to, kept as running sums.

    accuracy           share of tokens that are the likeliest (top-1)
    confidence         mean probability of the likeliest token
    overconfidence     confidence - accuracy: above 0, the model is surer than it is right
    calibration_error  sum_b n_b/n |accuracy_b - confidence_b| over 15 equal bins of confidence (arXiv 1706.04599)
    entropy            mean entropy of the prediction, nats

All sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bitnet_train.evaluate.frequency import CLASSES
from bitnet_train.evaluate.measured import Score
from bitnet_train.evaluate.perplexity import exponential

_BINS = 15


class Tally:
    """Running sums over tokens; `add` takes some, `score` gives the figures of all."""

    def __init__(self) -> None:
        self._tokens, self._nats, self._entropy = 0, 0.0, 0.0
        self._bins = torch.zeros(2, _BINS, dtype=torch.float64)  # confidence, and how many were right
        self._hits = torch.zeros(len(CLASSES), dtype=torch.int64)

    def add(self, log_probs: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """Take predictions float32 [T, vocabulary], labels and their frequency classes int64 [T].

        Returns the likeliest tokens, int64 [T].
        """
        best, likeliest = log_probs.max(dim=-1)
        hit, confidence = likeliest == labels, best.double().exp()
        self._tokens += len(labels)
        self._nats -= float(log_probs.gather(1, labels[:, None]).double().sum())
        self._entropy -= float(torch.xlogy(log_probs.exp(), log_probs.exp()).sum(dim=-1).double().sum())
        places = (confidence.nan_to_num() * _BINS).long().clamp(0, _BINS - 1).cpu()
        for row, values in enumerate((confidence, hit.double())):
            self._bins[row].index_add_(0, places, values.cpu())
        self._hits += torch.bincount(classes[hit].cpu(), minlength=len(CLASSES))
        return likeliest

    def include(self, other: Tally) -> None:
        """Add the sums of another one."""
        self._tokens += other._tokens
        self._nats += other._nats
        self._entropy += other._entropy
        self._bins += other._bins
        self._hits += other._hits

    @property
    def hits(self) -> list[int]:
        """How many tokens of each frequency class were the likeliest."""
        return self._hits.tolist()

    def score(self) -> Score:
        """Return the figures; at least one token was added."""
        confidence, right = self._bins
        mean = float(confidence.sum()) / self._tokens
        accuracy = float(right.sum()) / self._tokens
        nats = self._nats / self._tokens
        return Score(
            nats,
            exponential(nats),
            self._tokens,
            accuracy,
            mean,
            mean - accuracy,
            float((right - confidence).abs().sum()) / self._tokens,
            self._entropy / self._tokens,
        )
