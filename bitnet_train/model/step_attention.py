"""A training step attends through the compiled kernels where torch's fused attention would be called on the CPU.

Transformers asks its registry for the attention that a configuration names. Within `step_attention` those of a model
that say `sdpa` name ours, which hands back to `sdpa` whatever it does not compute: dropout, a cache, a mask of floats,
heads of odd sizes, another device, what is being compiled. Outside, the model is as it was: exports and evaluation know
nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bitnet_train.kernels.attention import fits, fused_attention
from bitnet_train.model.quantized_linear import product_dtype

NAME = "bitnet_train_step"
MIN_TOKENS = 32
"""Fewer are not worth the packing."""
_SDPA = "sdpa"


@contextmanager
def step_attention(model: nn.Module) -> Iterator[None]:
    """Let a model, or a block of one, attend through the kernels within."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    changed = [] if _runs_again(model) else [c for c in _configs(model) if c._attn_implementation == _SDPA]
    try:
        for config in changed:
            config._attn_implementation = NAME
        yield
    finally:
        for config in changed:
            config._attn_implementation = _SDPA


def attention_again(part: nn.Module) -> AbstractContextManager[None]:
    """The attention that a part has now, for when it runs a second time outside of the step that it ran in."""
    stepping = any(config._attn_implementation == NAME for config in _configs(part))
    return step_attention(part) if stepping else nullcontext()


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """The configurations of a model and its parts, each once."""
    found = (part.__dict__.get("config") for part in model.modules())
    return list({id(config): config for config in found if isinstance(config, PreTrainedConfig)}.values())


def _runs_again(model: nn.Module) -> bool:
    """Whether transformers computes its blocks again in the backward pass, which is outside of the step."""
    return any(getattr(part, "gradient_checkpointing", False) is True for part in model.modules())


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as `sdpa_attention_forward` does, with its arguments: [B, L, H, D] of [B, heads, L, D]."""
    given = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal}
    if torch.compiler.is_compiling():  # which has code of its own for torch's
        return sdpa_attention_forward(module, query, key, value, attention_mask, **given, **others)
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = _mask(attention_mask, query)
    if torch.is_autocast_enabled(query.device.type):  # which casts for torch's own
        query, key, value = (x.to(product_dtype(x)) for x in (query, key, value))
    is_plain = dropout == 0.0 and scale > 0 and others.get("position_bias") is None and others.get("softcap") is None
    is_known = mask is not None if attention_mask is not None else causal
    if is_plain and is_known and query.shape[2] >= MIN_TOKENS and fits(query, key, value):
        return fused_attention(query, key, value, mask, scale), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **given, **others)


def _mask(attention_mask: Tensor | None, query: Tensor) -> Tensor | None:
    """bool [B, L, L] of one for all heads; None of any other."""
    if attention_mask is None or attention_mask.dtype != torch.bool or attention_mask.ndim != 4:
        return None
    length = query.shape[2]
    if attention_mask.shape[1] != 1 or attention_mask.shape[2:] != (length, length):
        return None
    return attention_mask[:, 0].expand(query.shape[0], length, length)
