"""Match how the tokens of a row relate to each other in one block, MiniLMv2 (arXiv 2012.15828, section 3).

For each of queries, keys and values, the outputs A [L,d] of that projection per head (before rotary positions) give

```
R = softmax(A A^T / sqrt(d))                 [L,L], over the positions of its document
attention = mean over the three and their heads of  sum_i KL(R_t[i] || R_s[i])      i over the trained positions
```

Only relations are compared, so the widths of the heads may differ between student and teacher, but not their number.
One block is enough, the last by default; the paper prefers a middle one for large teachers (`loss.attention_layer`).
Fused projections (one matrix for q, k and v) are not taken apart.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitnet_train.errors import ConfigError
from bitnet_train.model.bit_linear import clean_name
from bitnet_train.model.config_fields import num_heads, num_key_value_heads
from bitnet_train.train.losses.logit_loss import IGNORED

KINDS = ("query", "key", "value")
_PROJECTION = re.compile(r"(?:^|\.)(\d+)\.(?:.*\.)?(?:([qkv])_proj|w([qkv])|(query|key|value))$")


class RelationTaps:
    """Listens to the projections of one block of student and teacher, by forward hooks.

    Raises
    ------
    ConfigError
        When a model has no separate projections, no such block, or the two have different numbers of heads.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, layer: int) -> None:
        self.heads = {kind: _num_heads(teacher, kind) for kind in KINDS}
        if self.heads != {kind: _num_heads(student, kind) for kind in KINDS}:
            raise ConfigError(
                "`loss.attention` compares head by head, but student and teacher have different numbers of attention "
                "heads. Set `loss.attention=0`, or another `teacher.source`."
            )
        self._heard: dict[tuple[str, str], Tensor] = {}
        self._handles = []
        for who, model in (("student", student), ("teacher", teacher)):
            for kind, module in projections(model, layer).items():
                self._handles.append(module.register_forward_hook(partial(self._hear, (who, kind))))

    def divergence(self, targets_BL: Tensor, visible: Tensor | None) -> Tensor:
        """Return the term for the latest forward of both, summed over the trained positions of `targets_BL`.

        visible: which columns a token is related to, bool [B,L], or [B,L,L] where rows hold several documents.
        """
        trained = targets_BL != IGNORED
        real = torch.ones_like(trained) if visible is None else visible.bool()
        real = real[:, None, :] if real.dim() == 2 else real
        terms = []
        for kind in KINDS:
            student, teacher = (self._relation((who, kind), real) for who in ("student", "teacher"))
            rows_BhL = F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
            terms.append((rows_BhL.mean(1) * trained).sum())
        return torch.stack(terms).mean()

    def close(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()

    def _hear(self, key: tuple[str, str], module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._heard[key] = output

    def _relation(self, key: tuple[str, str], visible_BLL: Tensor) -> Tensor:
        """Return log R [B,h,L,L] in float32 or wider, columns that are not visible at the least number there is."""
        output = self._heard.pop(key)
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        heads_BhLd = wide.unflatten(-1, (self.heads[key[1]], -1)).transpose(1, 2)
        with torch.autocast(wide.device.type, enabled=False):
            scores = heads_BhLd @ heads_BhLd.transpose(-1, -2) / heads_BhLd.shape[-1] ** 0.5
        return scores.masked_fill(~visible_BLL[:, None], torch.finfo(scores.dtype).min).log_softmax(-1)


def projections(model: nn.Module, layer: int) -> dict[str, nn.Module]:
    """Return the modules that make queries, keys and values in block `layer` (negative = from the end).

    An adapter counts as part of the projection it is attached to. Raises ConfigError; see `RelationTaps`.
    """
    blocks: dict[int, dict[str, nn.Module]] = {}
    for name, module in model.named_modules():
        if match := _PROJECTION.search(clean_name(name)):
            kind = next(kind for kind in KINDS if kind[0] == next(filter(None, match.groups()[1:]))[0])
            blocks.setdefault(int(match[1]), {}).setdefault(kind, module)  # a wrapper comes before what it wraps
    whole = {number: found for number, found in sorted(blocks.items()) if len(found) == len(KINDS)}
    if not whole:
        raise ConfigError(
            f"`loss.attention` needs separate projections for queries, keys and values (q_proj, k_proj, v_proj), and "
            f"{type(model).__name__} has none. Set `loss.attention=0`, or use `loss.hidden`."
        )
    numbers = list(whole)
    if not -len(numbers) <= layer < len(numbers):
        raise ConfigError(
            f"`loss.attention_layer={layer}`: {type(model).__name__} has {len(numbers)} blocks. "
            f"Allowed: {-len(numbers)} to {len(numbers) - 1}; -1 is the last."
        )
    return whole[numbers[layer]]


def _num_heads(model: Any, kind: str) -> int:
    return num_heads(model) if kind == "query" else num_key_value_heads(model)
