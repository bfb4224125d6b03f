"""The architectures that the native runtime computes, as data: what one does otherwise than Llama.

The forward pass in C++ is one for all. A row says which of its choices a model class takes, and under which names its
config.json states the numbers; a class without a row is computed by the Hugging Face path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Family:
    """What a model class does; the defaults are those of Llama.

    Parameters
    ----------
    model_type
        As config.json states it.
    norms
        Whether RMS norms stand before attention and MLP (`inputs`), after them (`outputs`), or both.
    norm_offset
        What is added to a norm's weight: Gemma stores weights around 0.
    query_norms
        RMS norms of queries and keys: none, of each head, or of the whole projection.
    windows
        Whether no layer has a sliding window, all share `sliding_window`, or `layer_types` says which have it.
    rope_per_type
        Whether layers of each type have rotary positions of their own.
    rope_skips
        Whether `no_rope_layers` leaves layers without rotary positions.
    activation
        The key of config.json that names the activation function.
    attention_scale
        The key of the number that scores are scaled by; "" is 1 / sqrt(head_dim).
    attention_scale_power
        What that number is raised to.
    scaled_embedding
        Whether a tensor `embed_scale` multiplies the embedding.
    multipliers
        Whether config.json states factors for embedding, residual stream and logits.
    attention_soft_cap, logit_soft_cap
        Whether scores, and logits, are capped as config.json says.
    fused
        Whether queries, keys and values are one projection, and gate and up another.
    partial_rope
        Whether `partial_rotary_factor` leaves a part of each head as it is.
    states_head_dim
        Whether `head_dim` must be stated, because its default is a constant.
    """

    model_type: str
    norms: Literal["inputs", "outputs", "both"] = "inputs"
    norm_offset: float = 0.0
    query_norms: Literal["none", "heads", "whole"] = "none"
    windows: Literal["none", "all", "layers"] = "none"
    rope_per_type: bool = False
    rope_skips: bool = False
    activation: str = "hidden_act"
    attention_scale: str = ""
    attention_scale_power: float = 1.0
    scaled_embedding: bool = False
    multipliers: bool = False
    attention_soft_cap: bool = False
    logit_soft_cap: bool = False
    fused: bool = False
    partial_rope: bool = False
    states_head_dim: bool = False


_GEMMA2 = Family(
    "gemma2",
    norms="both",
    norm_offset=1.0,
    windows="layers",
    activation="hidden_activation",
    attention_scale="query_pre_attn_scalar",
    attention_scale_power=-0.5,
    scaled_embedding=True,
    attention_soft_cap=True,
    logit_soft_cap=True,
    states_head_dim=True,
)
_GEMMA3 = replace(_GEMMA2, model_type="gemma3_text", query_norms="heads", rope_per_type=True, attention_soft_cap=False)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlamaForCausalLM": Family("llama"),
        "MistralForCausalLM": Family("mistral", windows="all"),
        "Qwen2ForCausalLM": Family("qwen2", windows="layers"),
        "Qwen3ForCausalLM": Family("qwen3", windows="layers", query_norms="heads", states_head_dim=True),
        "Gemma2ForCausalLM": _GEMMA2,
        "Gemma3ForCausalLM": _GEMMA3,
        "SmolLM3ForCausalLM": Family("smollm3", windows="layers", rope_skips=True),
        "Olmo2ForCausalLM": Family("olmo2", norms="outputs", query_norms="whole"),
        "GraniteForCausalLM": Family("granite", multipliers=True, attention_scale="attention_multiplier"),
        "Phi3ForCausalLM": Family("phi3", windows="all", fused=True, partial_rope=True),
    }
)
"""The model classes that the native runtime computes."""

ACTIVATIONS: Mapping[str, str] = MappingProxyType({"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"})
"""Activation functions of an MLP as config.json names them, and as the C++ does."""
