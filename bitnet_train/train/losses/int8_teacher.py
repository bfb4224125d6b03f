"""A frozen model whose linears multiply int8 by int8, for the teacher's pass where integers are faster than floats.

    inputs        x[k] / e[k],  e[k] = sqrt(largest |x[k]| / largest |W[:,k]|): loud inputs and weights share the burden
                  (SmoothQuant, arXiv 2211.10438, its alpha = 1/2)
    weights       W[:,k] e[k], one scale an output, the largest value at 127: rounded once
    activations   one scale a token, as a 1-bit linear rounds them
    products      exact integers (`kernels.integer_training.int8_product`)

Embedding, norms, attention and everything between stay float, and the head too where its rounding would cost too much.
What is lost is measured on the run's own text when training starts, and told: SmolLM2-135M loses 0.008 nats a token and
0.013 with its head; 0.056 without the division. Other powers, or the best of nine for each layer, gained nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.kernels.fake_quantize import quantize_codes
from bitnet_train.kernels.integer_training import int8_product, pack_int8_weight
from bitnet_train.kernels.reference_training import round_rows
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.train.losses.token_losses import count_trained, kl

Model = TypeVar("Model", bound=nn.Module)
MOST_LOST = 0.01
"""Nats a token that `teacher.products=auto` lets rounding cost, where good students are off by 0.3 to 1.3."""
_INT8 = ActivationScheme("int8")
_SMALLEST = 1e-5


class FrozenInt8Linear(nn.Module):
    """Linear layer [.., K] -> [.., N] in int8 on both sides, in the dtype of its input; nothing of it trains.

    `largest_inputs` float32 [K] are magnitudes that its inputs reach; None: they are not divided.
    """

    def __init__(self, linear: nn.Linear, largest_inputs: Tensor | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        burden = None if largest_inputs is None else _burden(largest_inputs, weight)
        self._inverse = None if burden is None else 1 / burden
        codes, scale = round_rows(weight if burden is None else weight * burden)
        self._weight = pack_int8_weight(codes, scale.reshape(-1))
        self._bias = None if linear.bias is None else linear.bias.detach().float()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        rows = x.reshape(-1, self.in_features)
        codes, scale = quantize_codes(rows if self._inverse is None else rows.float() * self._inverse, _INT8)
        y = int8_product(codes, scale, self._weight, self._bias)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)


def _burden(largest_inputs: Tensor, weight: Tensor) -> Tensor:
    """Return e [K], of geometric mean 1."""
    largest_weights = weight.abs().amax(0)
    burden = (largest_inputs.clamp(min=_SMALLEST) / largest_weights.clamp(min=_SMALLEST)).sqrt()
    return burden / burden.log().mean().exp()


def in_int8(teacher: Model, batch: Mapping[str, Tensor], *, with_head: bool = True) -> Model:
    """Return a copy of a frozen model that multiplies in int8; what is not rounded is shared with the original.

    `batch` is text that shows how large the inputs of its linears get. Without `with_head` its head stays as it is.
    """
    largest = _largest_inputs(teacher, batch)
    shared = {id(tensor): tensor for tensor in (*teacher.parameters(), *teacher.buffers())}
    made = deepcopy(teacher, shared)
    head = made.get_output_embeddings() if isinstance(made, PreTrainedModel) and not with_head else None
    linears = [(name, module) for name, module in made.named_modules() if type(module) is nn.Linear]
    for name, linear in linears:
        if linear is not head:
            made.set_submodule(name, FrozenInt8Linear(linear, largest.get(name)), strict=True)
    return made


@torch.no_grad()
def _largest_inputs(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the largest magnitude [K] of each input of every linear that the batch reaches, by its name."""
    found: dict[str, Tensor] = {}

    def note(name: str, linear: nn.Module, given: tuple[Tensor, ...]) -> None:
        largest = given[0].float().abs().reshape(-1, given[0].shape[-1]).amax(0)
        found[name] = torch.maximum(found[name], largest) if name in found else largest

    linears = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    listening = [linear.register_forward_pre_hook(partial(note, name)) for name, linear in linears]
    _logits(model, batch)
    for listener in listening:
        listener.remove()
    return found


@torch.no_grad()
def distance(rounded: nn.Module, exact: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """Return KL(exact || rounded) of two models on the trained tokens of a batch, in nats a token."""
    rounded_BLV, exact_BLV = (_logits(model, batch) for model in (rounded, exact))
    return float(kl(rounded_BLV, exact_BLV, batch["labels"])) / max(1, count_trained(batch["labels"]))


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    return model.eval()(**inputs, use_cache=False).logits
