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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.errors import ConfigError
from bitnet_train.train.losses.hidden_loss import hidden_distance
from bitnet_train.train.losses.logit_loss import IGNORED, LogitWeights, TeacherLogits, logit_loss

WEIGHTS = ("kl", "reverse_kl", "ce", "hidden", "attention")
BALANCE_RATIO = 0.3  # share of the other losses' gradient norm that won in the replications we know of


@dataclass(frozen=True)
class LossConfig:
    """Weights of the token losses; `hidden` and `attention` multiply balanced terms when `hidden_balance` is on."""

    kl: float = 1.0
    reverse_kl: float = 0.0
    ce: float = 0.0
    hidden: float = 0.0
    attention: float = 0.0
    attention_layer: int = -1
    temperature: float = 1.0
    hidden_balance: bool = True
    balance_step: int = 100

    def __post_init__(self) -> None:
        for key in WEIGHTS:
            if not 0.0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"`loss.{key}={getattr(self, key)}` must be a finite number, 0 or more.")
        if not any(getattr(self, key) for key in WEIGHTS):
            names = ", ".join(f"`loss.{key}`" for key in WEIGHTS)
            raise ConfigError(f"All weights ({names}) are 0: nothing would be learnt. Set one.")
        if not self.temperature > 0.0:
            raise ConfigError(f"`loss.temperature={self.temperature}` must be above 0. 1.0 is the usual choice.")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the frozen model."""
        return any(getattr(self, key) > 0 for key in WEIGHTS if key != "ce")

    @property
    def logit_weights(self) -> LogitWeights:
        """What `logit_loss` reads."""
        return LogitWeights(self.kl, self.reverse_kl, self.ce, self.temperature)

    @property
    def uses_logits(self) -> bool:
        """Whether any term is over logits."""
        return self.kl + self.reverse_kl + self.ce > 0

    @property
    def balanced(self) -> tuple[str, ...]:
        """The terms whose weight is measured: those that are on and not over logits, beside one that is."""
        names = [key for key in ("hidden", "attention") if getattr(self, key) > 0]
        return tuple(names) if self.hidden_balance and self.uses_logits else ()


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
