"""Parts of a model whose backward pass keeps less of the forward one, or makes less: norms, gated units, the embedding.

```
norm    y = w * (x * r)         kept: x and r, a number a token               autograd keeps x * r too
unit    y = silu(gate) * up     kept: gate and up                             autograd keeps silu(gate) too
rows    y = W[ids]              made: dW of these rows                        autograd makes all of dW, nearly all 0
```

The forward pass calls the operations of the module itself in its order, so that a step computes the bits of evaluation;
the gradients are those of `kernels.pointwise`. A module is taken for what it does, not for its name:
one that gives other bits on a row of random numbers is left as it is. An embedding makes rows where the head has the
same weight: its own gradient is there already, and autograd adds the rows to it in place.
"""

from __future__ import annotations

from copy import copy
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from bitnet_train.kernels.pointwise import gated_unit_gradients, norm_gradients
from bitnet_train.model.start.blocks import decoder_blocks

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_WIDTH, _ROWS = 24, 3  # of a trial
_FILLED = "_bitnet_train_filled"  # on a parameter whose gradient of rows alone `_fill` makes whole


def keep_less(student: nn.Module) -> int:
    """Let these parts of a model run so from here on; return how many there are.

    Raises ConversionError for a model without a list of blocks.
    """
    whole: Any = student.get_base_model() if isinstance(student, PeftModel) else student
    known: dict[type, bool] = {}
    count = 0
    for part in decoder_blocks(whole)[1].modules():
        forward: Any = _norm if _is_norm(part) else _unit if _is_unit(part, known) else None
        if forward is not None:
            part.forward = MethodType(forward, part)  # bound, so that a copy of a part runs the copy
            count += 1
    return count + _keep_rows(whole)


def _keep_rows(model: nn.Module) -> int:
    """Let the embedding make rows; return 1 if it does."""
    if not isinstance(model, PreTrainedModel):
        return 0
    table: Any = model.get_input_embeddings()
    is_plain = type(table).forward is nn.Embedding.forward and table.max_norm is None and not table.scale_grad_by_freq
    is_tied = table.weight is getattr(model.get_output_embeddings(), "weight", None)
    if not is_plain or not is_tied or not table.weight.requires_grad:
        return 0
    table.forward = MethodType(_rows, table)
    table.weight.register_post_accumulate_grad_hook(_fill)
    setattr(table.weight, _FILLED, True)
    return 1


def _fill(weight: Tensor) -> None:
    """Make all of a gradient that is rows alone: where a loss went past the head."""
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()


def _is_norm(part: nn.Module) -> bool:
    names = [name for name, _ in part.named_parameters()]
    weight = getattr(part, "weight", None)
    if names != ["weight"] or not hasattr(part, "variance_epsilon") or not isinstance(weight, Tensor):
        return False
    if weight.ndim != 1 or weight.is_meta:
        return False
    with torch.no_grad():
        x = torch.randn(_ROWS, len(weight), generator=_generator()).to(weight.device)
        return torch.equal(type(part).forward(part, x), _norm(part, x))


def _is_unit(part: nn.Module, known: dict[type, bool]) -> bool:
    kind = type(part)
    if not isinstance(getattr(part, "act_fn", None), nn.Module) or not all(
        hasattr(part, name) for name in _PROJECTIONS
    ):
        return False
    if kind not in known:
        known[kind] = _behaves_as_unit(part)
    return known[kind]


def _behaves_as_unit(part: nn.Module) -> bool:
    """Try the forward of its class with small projections in the place of its own."""
    generator, trial = _generator(), copy(part)
    trial._modules = dict(part._modules)
    for name in _PROJECTIONS:
        linear = nn.Linear(_WIDTH, _WIDTH, bias=False)
        linear.weight = nn.Parameter(torch.randn(_WIDTH, _WIDTH, generator=generator))
        setattr(trial, name, linear)
    x = torch.randn(_ROWS, _WIDTH, generator=generator)
    with torch.no_grad():
        try:
            return torch.equal(type(part).forward(trial, x), _unit(trial, x))
        except Exception:  # of any kind: it takes other inputs, or reads its own projections
            return False


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _rows(part: Any, input: Tensor) -> Tensor:
    is_filled = getattr(part.weight, _FILLED, False)  # not one that took its place: a copy's, or the parts of FSDP
    return F.embedding(input, part.weight, part.padding_idx, sparse=is_filled)


def _norm(part: Any, hidden_states: Tensor) -> Tensor:
    return _Norm.apply(hidden_states, part.weight, part.variance_epsilon)  # pyright: ignore[reportReturnType]


def _unit(part: Any, x: Tensor) -> Tensor:
    return part.down_proj(_Gated.apply(part.gate_proj(x), part.up_proj(x)))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32)
        rate = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, rate, weight)
        return weight * (wide * rate).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, rate, weight = ctx.saved_tensors
        by_x, by_weight, _ = ctx.needs_input_grad
        dx, dw = norm_gradients(x, rate, weight, grad_outputs[0], with_weight=by_weight)
        return dx if by_x else None, dw, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        return gated_unit_gradients(gate, up, grad_outputs[0])
