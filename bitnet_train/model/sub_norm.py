"""An RMSNorm before the 1-bit layers that write to the residual stream: SubLN as BitDistill puts it (arXiv 2510.13998).

    y = W_eff Qa(n * g) + b      n = x / rms(x) over the K inputs of a token, g [K] = `sub_norm`

in the output projections of attention and MLP. This is not an identity: each token loses its own magnitude. `calibrate`
sets g to the root mean square that the full-precision model has there on calibration text, so the mean magnitude stays;
without it the first forward is nonsense.

Not done: export. A Llama has no norm there, so no runtime of its architecture would compute it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.plan import Plan
from bitnet_train.model.start.input_moments import row_batches
from bitnet_train.model.training_only import TrainingOnly

SUB_NORM_REFUSAL = (
    "Norms before output projections (`weight.sub_norm=true`) exist in training only: the model's architecture "
    "has none there, so no runtime would compute them. Measure the model with `bitnet-train train`, or train one to "
    "pack with `weight.sub_norm=false`."
)
OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2")
_EPSILON = 1e-6  # of the mean square, as Llama's norms


class SubNormBitLinear(TrainingOnly, BitLinear):
    """BitLinear of the normalised input. Parameter `sub_norm`: float32 [K], 1 until it is calibrated."""

    refusal = SUB_NORM_REFUSAL
    own_parameters = ("sub_norm",)

    def __init__(self, in_features: int, out_features: int, **options: Any) -> None:
        super().__init__(in_features, out_features, **options)
        self.sub_norm = nn.Parameter(torch.ones(in_features, device=self.weight.device))

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """x [.., K] to [.., N] in the dtype of BitLinear; the norm is computed in float32."""
        normed = F.rms_norm(x.float(), (self.in_features,), self.sub_norm, _EPSILON)
        return super().forward(normed.to(x.dtype), latent)


def add_sub_norms(model: nn.Module, plan: Plan) -> list[str]:
    """Put norms into the output projections of a converted model, in place; return their names."""
    names = output_projections(plan)
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, BitLinear), f"{name} was planned as a 1-bit linear layer"
        model.set_submodule(name, SubNormBitLinear.taking_over(layer), strict=True)
    return names


def output_projections(plan: Plan) -> list[str]:
    """Return the converted layers that write to the residual stream, by the names that architectures give them.

    Raises ConversionError where there is none.
    """
    names = [name for name in plan.converted if name.rpartition(".")[2] in OUTPUT_PROJECTIONS]
    if not names:
        raise ConversionError(
            "`weight.sub_norm=true` finds no output projection among the 1-bit layers: it knows "
            f"{', '.join(OUTPUT_PROJECTIONS)}. Set it to false."
        )
    return names


@torch.no_grad()
def calibrate(student: nn.Module, original: PreTrainedModel, token_ids: Tensor, is_real: Tensor) -> None:
    """Set each norm's gain to the root mean square of what `original` has there.

    token_ids int64 [R, L], right-padded; is_real bool [R, L]: only real tokens count.
    """
    layers = {name: layer for name, layer in student.named_modules() if isinstance(layer, SubNormBitLinear)}
    squares = dict.fromkeys(layers, 0.0)
    for rows in row_batches(len(token_ids)):
        with ExitStack() as hooks:
            for name in layers:
                handle = original.get_submodule(name).register_forward_pre_hook(_adds_to(squares, name, is_real[rows]))
                hooks.callback(handle.remove)
            original(token_ids[rows], attention_mask=is_real[rows].long())
    for name, layer in layers.items():
        layer.sub_norm.fill_((squares[name] / int(is_real.sum()) / layer.in_features) ** 0.5)


def _adds_to(squares: dict[str, float], name: str, real: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def add(module: nn.Module, args: tuple[Any, ...]) -> None:
        squares[name] += float(args[0][real].float().square().sum())

    return add
