"""Token losses of distillation, as sums over tokens, so that any split of a step into micro-batches adds up.

With t the frozen teacher, s the student, T the temperature, n(h) = h / ||h||, and sums over the *trained* positions
(those whose next token has a label other than -100):

```
kl      T^2 sum_v p_t(v) (log p_t(v) - log p_s(v)),   p = softmax(logits / T)       forward KL, Hinton (1503.02531)
ce      -log p_s(next token)                                                        T = 1
hidden  mean over blocks of || n(h_t) - n(h_s) ||^2
```

The weight of `hidden` is not a constant copied from a paper, which fails on other models: the module measures the
gradient norms of both parts and scales `hidden` to `HIDDEN_RATIO` of the rest (`balance_factor`).

Logits of positions that are not trained are dropped before any softmax; the softmaxes run in float32 (float64 where the
model is float64), `CHUNK_ROWS` positions at a time, and are recomputed in the backward pass: beyond the logits
themselves the memory is a few `[CHUNK_ROWS, V]` tensors for any batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bitnet_train.errors import ConfigError

IGNORED = -100  # the label of a position that is not trained, Hugging Face's convention
CHUNK_ROWS = 1024  # 200 MB of float32 at a vocabulary of 49,152
HIDDEN_RATIO = 0.3  # share of the other losses' gradient norm that won in the replications we know of


@dataclass(frozen=True)
class LossConfig:
    """Weights of the token losses; `hidden` multiplies the balanced term when `hidden_balance` is on."""

    kl: float = 1.0
    ce: float = 0.0
    hidden: float = 0.0
    temperature: float = 1.0
    hidden_balance: bool = True
    balance_step: int = 100

    def __post_init__(self) -> None:
        for key in ("kl", "ce", "hidden"):
            if not 0.0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"`loss.{key}={getattr(self, key)}` must be a finite number, 0 or more.")
        if self.kl + self.ce + self.hidden == 0.0:
            raise ConfigError("`loss.kl`, `loss.ce` and `loss.hidden` are all 0: nothing would be learnt. Set one.")
        if not self.temperature > 0.0:
            raise ConfigError(f"`loss.temperature={self.temperature}` must be above 0. 1.0 is the usual choice.")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the frozen model."""
        return self.kl > 0 or self.hidden > 0


def next_labels(labels_BL: Tensor) -> Tensor:
    """Shift labels to the positions that predict them: int64 [B,L], the last column ignored."""
    return F.pad(labels_BL[:, 1:], (0, 1), value=IGNORED)


def count_trained(labels_BL: Tensor) -> int:
    """Count the positions whose next token is trained."""
    return int((labels_BL[:, 1:] != IGNORED).sum())


def kl(student_BLV: Tensor, teacher_BLV: Tensor, labels_BL: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the forward KL divergence in nats, summed over trained positions: a scalar, differentiable."""
    trained = next_labels(labels_BL) != IGNORED
    return _chunked(_kl_sum, student_BLV[trained], teacher_BLV[trained], temperature)


def ce(student_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Return the cross-entropy with the text in nats, summed over trained positions: a scalar, differentiable."""
    targets = next_labels(labels_BL)
    trained = targets != IGNORED
    return _chunked(_ce_sum, student_BLV[trained], targets[trained], 1.0)


def hidden(student: Sequence[Tensor], teacher: Sequence[Tensor], labels_BL: Tensor) -> Tensor:
    """Return the distance of L2-normalised states [B,L,H], mean over layers, summed over trained positions."""
    trained = next_labels(labels_BL) != IGNORED
    distances = [
        (F.normalize(_wide(s[trained]), dim=-1) - F.normalize(_wide(t[trained]), dim=-1)).square().sum()
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(distances).mean()


def balance_factor(other_norm: Tensor, hidden_norm: Tensor) -> Tensor:
    """Return the factor that brings the gradient norm of `hidden` to `HIDDEN_RATIO` of the others'; 1 if either is 0.

    A zero says nothing about scale: at the first step of a converted model that equals its teacher, for example.
    """
    usable = (other_norm > 0) & (hidden_norm > 0)
    return torch.where(usable, HIDDEN_RATIO * other_norm / hidden_norm.clamp_min(torch.finfo(torch.float32).tiny), 1.0)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _chunked(function, student_MV: Tensor, target_M: Tensor, temperature: float) -> Tensor:
    if len(student_MV) <= CHUNK_ROWS:
        return function(student_MV, target_M, temperature)
    pieces = zip(student_MV.split(CHUNK_ROWS), target_M.split(CHUNK_ROWS), strict=True)
    sums = [checkpoint(function, s, t, temperature, use_reentrant=False, preserve_rng_state=False) for s, t in pieces]
    return torch.stack(sums).sum()


def _kl_sum(student_MV: Tensor, teacher_MV: Tensor, temperature: float) -> Tensor:
    log_p = F.log_softmax(_wide(teacher_MV) / temperature, dim=-1)
    log_q = F.log_softmax(_wide(student_MV) / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def _ce_sum(student_MV: Tensor, target_M: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(_wide(student_MV) / temperature, target_M, reduction="sum")
