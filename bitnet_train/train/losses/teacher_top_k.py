"""A teacher's distribution as its k likeliest tokens and one bucket for the rest, and the divergence from that.

With p, q the softmax of teacher and student over T, K the teacher's k likeliest tokens, p_r = 1 - sum of p over K:

```
kl        T^2 [ sum_{v in K} p_v log(p_v / q_v) + p_r log(p_r / q_r) ]
gradient  T (q_v - p_v)  for v in K,      T q_v (1 - p_r / q_r)  elsewhere
```

Merging outcomes never raises a divergence (data processing inequality), so this is a lower bound of the full forward
KL, equal to it for k = V. It does not see how the teacher shares out p_r, and leaves the student alone there.

Stored are logarithms in float16, whose error is largest (2^-11 relative) where the probability is least; the k + 1
probabilities are brought to a sum of 1 when read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bitnet_train.train.losses.logit_loss import Divergence, LogitWeights, Softmax

CHUNK_BYTES = 64 << 20  # of logits in float32, while the likeliest are looked for


@dataclass(frozen=True)
class TopK:
    """Rows of log-probabilities [R,k+1], the last one the rest's, and token ids int64 [R,k]; a `Target`."""

    log_probabilities: Tensor
    token_ids: Tensor

    def at(self, index: slice | Tensor) -> TopK:
        """Return these rows."""
        return TopK(self.log_probabilities[index], self.token_ids[index])

    def divergence(self, index: slice | Tensor, student: Softmax, weights: LogitWeights, grad: bool) -> Divergence:
        """Compare with the student's probabilities of the same k tokens and of the rest; reverse KL is not offered."""
        assert weights.reverse_kl == 0
        ids_Ck = self.token_ids[index]
        log_p = self.log_probabilities[index].to(student.logits.dtype).log_softmax(-1)
        p, q_Ck = log_p.exp(), student.probabilities.gather(1, ids_Ck)
        rest_C1 = student.probabilities.scatter(1, ids_Ck, 0.0).sum(-1, keepdim=True)
        log_rest = rest_C1.clamp_min(torch.finfo(rest_C1.dtype).tiny).log()
        log_q = torch.cat([student.logits.gather(1, ids_Ck) - student.log_denominator, log_rest], dim=1)
        kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum()
        gradient = None
        if grad:
            unseen = torch.where(rest_C1 > 0, p[:, -1:] / rest_C1, 0.0)
            gradient = (student.probabilities * (1 - unseen)).scatter_(1, ids_Ck, q_Ck - p[:, :-1])
            gradient.mul_(weights.temperature * weights.kl)
        return Divergence(weights.temperature**2 * kl, torch.zeros_like(kl), gradient)


def summarise(logits_RV: Tensor, top_k: int, temperature: float = 1.0, dtype: torch.dtype = torch.float16) -> TopK:
    """Return the `top_k` likeliest tokens of every row and the rest, at `temperature`, stored as `dtype`."""
    num_rows = max(1, CHUNK_BYTES // (4 * logits_RV.shape[-1]))
    with torch.autocast(logits_RV.device.type, enabled=False):
        parts = [_summarise(part, top_k, temperature) for part in logits_RV.split(num_rows)]
        return TopK(torch.cat([part[0] for part in parts]).to(dtype), torch.cat([part[1] for part in parts]))


def _summarise(logits_RV: Tensor, top_k: int, temperature: float) -> tuple[Tensor, Tensor]:
    wide = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    log_p = (wide / temperature).log_softmax(-1)
    log_likeliest, token_ids = log_p.topk(min(top_k, log_p.shape[-1]), dim=-1)
    rest = log_p.scatter(1, token_ids, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([log_likeliest, rest], dim=1), token_ids
