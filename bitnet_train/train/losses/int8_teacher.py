"""A frozen model whose linears multiply int8 by int8, for the teacher's pass where integers are faster than floats.

    weights       one scale an output, the largest value at 127: rounded once
    activations   one scale a token, as a 1-bit linear rounds them
    products      exact integers (`kernels.integer_training.int8_product`)

Embedding, norms, attention and everything between stay float. What the rounding costs is measured on the run's own text
when training starts (`distance`), and told: 0.001 nats a token of the bundled model, 0.04 of SmolLM2-135M, of every
kind of layer some.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitnet_train.kernels.fake_quantize import quantize_tokens
from bitnet_train.kernels.integer_training import int8_product, pack_int8_weight
from bitnet_train.kernels.reference_training import round_rows
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.train.losses.token_losses import count_trained, kl

Model = TypeVar("Model", bound=nn.Module)
MOST_LOST = 0.005
"""Nats a token that `teacher.products=auto` lets rounding cost: a hundredth of what good students are off."""
_INT8 = ActivationScheme("int8")


class FrozenInt8Linear(nn.Module):
    """Linear layer [.., K] -> [.., N] in int8 on both sides, in the dtype of its input; nothing of it trains."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        codes, scale = round_rows(linear.weight.detach().float())
        self._weight = pack_int8_weight(codes, scale.reshape(-1))
        self._bias = None if linear.bias is None else linear.bias.detach().float()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        rows = x.reshape(-1, self.in_features)
        codes, scale, _ = quantize_tokens(rows, _INT8, rows.dtype)
        y = int8_product(codes, scale, self._weight, self._bias)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)


def in_int8(teacher: Model) -> Model:
    """Return a copy of a frozen model that multiplies in int8; what is not rounded is shared with the original."""
    shared = {id(tensor): tensor for tensor in (*teacher.parameters(), *teacher.buffers())}
    made = deepcopy(teacher, shared)
    linears = [(name, module) for name, module in made.named_modules() if type(module) is nn.Linear]
    for name, linear in linears:
        made.set_submodule(name, FrozenInt8Linear(linear), strict=True)
    return made


@torch.no_grad()
def distance(rounded: nn.Module, exact: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """Return KL(exact || rounded) of two models on the trained tokens of a batch, in nats a token."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    rounded_BLV, exact_BLV = (model.eval()(**inputs, use_cache=False).logits for model in (rounded, exact))
    return float(kl(rounded_BLV, exact_BLV, batch["labels"])) / max(1, count_trained(batch["labels"]))
