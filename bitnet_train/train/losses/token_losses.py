"""Token losses of distillation, as sums over tokens, so that any split of a step into micro-batches adds up.

With t the frozen teacher, s the student, n(h) = h / ||h||, and sums over the *trained* positions (those whose next
token has a label other than -100):

```
kl, reverse_kl, ce   over logits: see `logit_loss`, which makes them and their gradient together
hidden               mean over blocks of || n(h_t) - n(h_s) ||^2
attention            KL between the relations of queries, keys and values of one block: see `attention_relation`
```

The weights of `hidden` and `attention` are not constants copied from a paper, which fail on other models: the module
measures gradient norms and scales each to `BALANCE_RATIO` of the terms over logits (`balance_factor`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.train.losses.hidden_loss import hidden_distance
from bitnet_train.train.losses.logit_loss import IGNORED, LogitWeights, TeacherLogits, logit_loss
from bitnet_train.train.losses.settings import LossConfig

BALANCE_RATIO = 0.3  # share of the other losses' gradient norm that won in the replications we know of


def logit_weights(loss: LossConfig) -> LogitWeights:
    """Return what `logit_loss` reads of the settings."""
    return LogitWeights(loss.kl, loss.reverse_kl, loss.ce, loss.temperature)


def next_labels(labels_BL: Tensor) -> Tensor:
    """Shift labels to the positions that predict them: int64 [B,L], the last column ignored."""
    return F.pad(labels_BL[:, 1:], (0, 1), value=IGNORED)


def count_trained(labels_BL: Tensor) -> int:
    """Count the positions whose next token is trained."""
    return int((labels_BL[:, 1:] != IGNORED).sum())


def kl(student_BLV: Tensor, teacher_BLV: Tensor, labels_BL: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the forward KL divergence in nats, summed over trained positions: a scalar, differentiable."""
    weights = LogitWeights(kl=1.0, temperature=temperature)
    return logit_loss(student_BLV, TeacherLogits(teacher_BLV.flatten(0, -2)), next_labels(labels_BL), weights)[0]


def ce(student_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Return the cross-entropy with the text in nats, summed over trained positions: a scalar, differentiable."""
    return logit_loss(student_BLV, None, next_labels(labels_BL), LogitWeights(ce=1.0))[0]


def hidden(student: Sequence[Tensor], teacher: Sequence[Tensor], labels_BL: Tensor) -> Tensor:
    """Return the distance of L2-normalised states [B,L,H], mean over layers, summed over trained positions."""
    trained = next_labels(labels_BL) != IGNORED
    distances = [hidden_distance(s, t, trained) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(distances).mean()


def balance_factor(logit_norm: Tensor, term_norm: Tensor) -> Tensor:
    """Return the factor that brings a term's gradient norm to `BALANCE_RATIO` of the logits'; 1 if either is 0.

    A zero says nothing about scale: at the first step of a converted model that equals its teacher, for example.
    """
    usable = (logit_norm > 0) & (term_norm > 0)
    return torch.where(usable, BALANCE_RATIO * logit_norm / term_norm.clamp_min(torch.finfo(torch.float32).tiny), 1.0)
