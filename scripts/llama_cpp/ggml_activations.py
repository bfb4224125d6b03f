"""How ggml's CPU backend rounds the activations of a matrix product, in torch: by the type of the weights.

    F32                 not at all
    F16, BF16           to that type
    Q8_0, Q5_0, Q4_0,
    Q1_0, Q2_0          to Q8_0: blocks of 32, d = max|x| / 127, codes = round(x / d), d kept in float16
    TQ1_0, TQ2_0        to Q8_K: blocks of 256, d = max|x| / 127, codes = round(x / d)

Source: `vec_dot_type` in ggml-cpu.c, `quantize_row_q8_0_ref` and `quantize_row_q8_K_ref` in ggml-quants.c. Put in
front of the linears of a float model, this is what llama.cpp computes up to the order of float sums; so it shows that
nothing but the rounding of activations is between its logits and those of the float model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.gguf.architecture import architecture_of
from bitnet_train.gguf.file import open_gguf

_LARGEST_CODE = 127


def round_q8_0(x: Tensor) -> Tensor:
    """Round x [.., K] as a row of Q8_0 blocks."""
    blocks = x.unflatten(-1, (-1, 32))
    d = blocks.abs().amax(-1, keepdim=True) / _LARGEST_CODE
    codes = torch.where(d > 0, (blocks / d).round(), 0.0)
    return (codes * d.half().float()).flatten(-2)


def round_q8_k(x: Tensor) -> Tensor:
    """Round x [.., K] as a row of Q8_K blocks."""
    blocks = x.unflatten(-1, (-1, 256))
    d = blocks.abs().amax(-1, keepdim=True) / _LARGEST_CODE
    return (torch.where(d > 0, (blocks / d).round(), 0.0) * d).flatten(-2)


ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "F32": lambda x: x,
    "F16": lambda x: x.half().float(),
    "BF16": lambda x: x.bfloat16().float(),
    **dict.fromkeys(("Q8_0", "Q5_0", "Q4_0", "Q1_0", "Q2_0"), round_q8_0),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), round_q8_k),
}


def round_as_ggml(model: PreTrainedModel, file: Path) -> PreTrainedModel:
    """Make every linear of a float model round its input as llama.cpp does for the types in `file`; returns it."""
    tensors = open_gguf(file).tensors
    architecture = architecture_of(model.config.to_dict())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            target = architecture.to_gguf(f"{name}.weight")
            tensor = tensors[target if target in tensors else "token_embd.weight"]
            module.register_forward_pre_hook(_hook(ROUNDING[tensor.type_name]))
    return model


def _hook(rounding: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda _, inputs: (rounding(inputs[0]),)
