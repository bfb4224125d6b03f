"""Let a Hugging Face model compute with the native runtime's own float operations, so that both give the same bits.

    with shared_operations(model):
        logits = model(token_ids).logits        those of NativeModel.logits, bit for bit

A packed folder is computed twice here: by modules of transformers, and by C++ of ours. Both use the same integer
products, but torch sums norms, attention and products of floats in another order. One unit in the last place before an
int8 quantiser moves a code now and then, and a moved code is a whole step, so after some layers two correct programs
differ by quantisation noise, and greedy tokens differ where two logits are that close. Nothing finer can be said about
the two as they are. With the float operations shared, what is left of the difference is the wiring: which tensor goes
where, which positions see which, how a prompt is cut into batches and a cache into pages. Of that the tolerance is 0.

What is put in the place of what, for as long as the block runs:

    RMS norms (those of heads too)       kernels.float_ops.norm
    rotary embedding                     kernels.float_ops.rotary; applying it is exact in any order
    activation of the MLP                kernels.float_ops.silu or gelu_tanh; times `up` is one operation in both
    torch.tanh, which caps logits        kernels.float_ops.tanh
    nn.Linear: what is not packed        kernels.float_ops.linear
    attention                            kernels.float_ops.attention, registered with transformers' AttentionInterface

Evaluation only: no gradient, and no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import GELUTanh, SiLUActivation

from bitnet_train.errors import KernelError
from bitnet_train.kernels import float_ops
from bitnet_train.model.int8_table import Int8Embedding, Int8Linear
from bitnet_train.model.packed_embedding import PackedEmbedding
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.runtime.native.config_numbers import NotNative
from bitnet_train.runtime.native.families import FAMILIES, Family

ATTENTION = "bitnet_train_native"
"""The name of the attention in transformers' registry."""

_SAME_ALREADY = (PackedLinear, PackedEmbedding, Int8Linear, Int8Embedding, nn.Embedding, nn.Dropout)
_CAUSAL_LM = "ForCausalLM"


@contextmanager
def shared_operations(model: PreTrainedModel) -> Iterator[None]:
    """While the block runs, `model` computes with the native runtime's float operations.

    Raises
    ------
    NotNative
        When the model is of a class, or has a module, that the native runtime does not compute.
    KernelError
        When the model is in training mode, is not float32 on the CPU, or the compiled extension is missing; and in the
        block, when a computation needs a gradient, has padding, or positions that do not follow each other.
    """
    _check(model)
    replacements = {
        name: shared
        for name, module in model.named_modules(remove_duplicate=False)
        if (shared := _shared(name, module, _prefix(model), FAMILIES[type(model).__name__])) is not None
    }
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
    with ExitStack() as undo:
        undo.callback(model.set_attn_implementation, model.config._attn_implementation or "eager")
        model.set_attn_implementation(ATTENTION)
        for name, shared in replacements.items():
            undo.callback(_put, model, name, model.get_submodule(name))
            _put(model, name, shared)
        undo.enter_context(_SharedTanh())
        yield


class _SharedTanh(TorchFunctionMode):
    """Soft caps of logits are no module: they are written out in the forward of the model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return float_ops.tanh(*args) if func is torch.tanh else func(*args, **(kwargs or {}))


class _Norm(nn.Module):
    def __init__(self, norm: Any, offset: float) -> None:
        super().__init__()
        self.weight = norm.weight.detach() + offset
        self.eps = float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        return float_ops.norm(x, self.weight, self.eps)


class _Rotary(nn.Module):
    def __init__(self, rotary: Any) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str = "") -> tuple[Tensor, Tensor]:
        prefix = f"{layer_type}_" if layer_type else ""
        inv_freq, scaling = (getattr(self.rotary, prefix + name) for name in ("inv_freq", "attention_scaling"))
        cos, sin = float_ops.rotary(position_ids.reshape(-1), inv_freq, float(scaling))
        shape = (*position_ids.shape, 2 * inv_freq.shape[0])
        return torch.cat((cos, cos), -1).reshape(shape), torch.cat((sin, sin), -1).reshape(shape)


class _Silu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return float_ops.silu(x)


class _GeluTanh(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return float_ops.gelu_tanh(x)


class _Linear(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.detach()
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return float_ops.linear(x, self.weight, self.bias)


def _check(model: PreTrainedModel) -> None:
    float_ops.require_core()
    if type(model).__name__ not in FAMILIES:
        raise NotNative(f"{type(model).__name__} is not one of {', '.join(FAMILIES)}.")
    if model.training:
        raise KernelError("The model is in training mode, and the native runtime only evaluates. Call `.eval()` first.")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise KernelError(f"{name} is {tensor.dtype} on {tensor.device}. Call `.float().cpu()` on the model first.")


def _prefix(model: PreTrainedModel) -> str:
    """Return what the names of its modules' classes begin with: "Llama", "Qwen3"."""
    return type(model).__name__.removesuffix(_CAUSAL_LM)


def _shared(name: str, module: nn.Module, prefix: str, family: Family) -> nn.Module | None:
    """Return what stands in for `module`, None if it computes the same already; NotNative when that is not known."""
    kind = type(module).__name__
    if kind == f"{prefix}RMSNorm":
        return _Norm(module, family.norm_offset)
    if kind == f"{prefix}RotaryEmbedding":
        return _Rotary(module)
    if isinstance(module, nn.SiLU | SiLUActivation):
        return _Silu()
    if isinstance(module, GELUTanh):
        return _GeluTanh()
    if type(module) is nn.Linear:
        return _Linear(module)
    if isinstance(module, (*_SAME_ALREADY, nn.ModuleList)):
        return None
    if kind.startswith(prefix) and any(True for _ in module.children()):
        return None
    raise NotNative(f"{name} is a {kind}, which the native runtime does not compute.")


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _no_mask(*, attention_mask: Tensor | None = None, allow_is_causal_skip: bool = True, **_sizes: Any) -> None:
    """Stand in for transformers' masks: what a token sees follows from positions and window."""
    if attention_mask is not None and not attention_mask.bool().all():
        raise KernelError("The batch has padding, and the native runtime has none. Give texts one by one.")
    if not allow_is_causal_skip:
        raise KernelError("Several texts share a row, or a mask of its own is asked for: the native runtime has none.")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    position_ids: Tensor | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [B, H, T, D], key and value [B, G, S, D]; returns [B, T, H, D]."""
    if attention_mask is not None:
        raise KernelError("A mask is given, and the native runtime has none. Give texts one by one, without a mask.")
    first_key = _last_position(position_ids, query.shape[2]) + 1 - key.shape[2]
    how: dict[str, Any] = {"scale": scaling, "window": sliding_window or 0, "soft_cap": softcap or 0.0}
    rows = [
        float_ops.attention(q.transpose(0, 1), k, v, first_key=first_key, **how)
        for q, k, v in zip(query, key, value, strict=True)
    ]
    return torch.stack(rows), None


def _last_position(position_ids: Tensor | None, num_tokens: int) -> int:
    """Return the position of the last token, for all rows of the batch."""
    if position_ids is None:
        raise KernelError("Attention was called without positions. Install the transformers version of this package.")
    first = int(position_ids[0, 0])
    if not torch.equal(position_ids, torch.arange(first, first + num_tokens).expand_as(position_ids)):
        raise KernelError(f"Positions must follow each other in every text, but are {position_ids.tolist()}.")
    return first + num_tokens - 1
