"""What `config.json` says about a model of the Llama family, in the numbers that the native runtime computes with.

Read without transformers, whose classes fill in defaults that differ from version to version: a number that the file
does not state is not guessed, the folder then does not fit. Rotary frequencies come from the folder's tensors (the
exporter stores those of the training run), so only the factor on cos and sin is taken from here:

    rope type           factor on cos and sin
    default, linear, llama3    1
    yarn                       attention_factor, else (0.1 m ln s + 1) / (0.1 n ln s + 1) of the paper, arXiv 2309.00071
    others                     change with the length of the text: not computed here
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bitnet_train.errors import FormatError

KINDS = MappingProxyType(
    {
        "LlamaForCausalLM": "llama",
        "MistralForCausalLM": "mistral",
        "Qwen2ForCausalLM": "qwen2",
        "Qwen3ForCausalLM": "qwen3",
    }
)
"""The model classes that the native runtime computes, and their `model_type`."""

LARGEST_SIZE = (1 << 31) - 1  # of any size or count: the kernels count in 32 bits

_FIXED_ROPES = ("default", "linear", "llama3")


class NotNative(FormatError):
    """A sound folder that the native runtime does not compute; the message is the reason in words."""


@dataclass(frozen=True)
class Architecture:
    """Sizes and constants of one model; `sliding_window` is 0 where every token sees all before it."""

    kind: str
    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    rms_eps: float
    rope_scaling: float
    sliding_window: int


def read_architecture(config: Mapping[str, Any], model_class: str) -> Architecture:
    """Return the architecture that `config` (the object in config.json) describes.

    Raises
    ------
    NotNative
        When it is a model that only the Hugging Face path computes.
    FormatError
        When the numbers contradict each other or describe no model.
    """
    if model_class not in KINDS:
        raise NotNative(f"{model_class} is not one of {', '.join(KINDS)}")
    kind = KINDS[model_class]
    if config.get("model_type") != kind:
        raise FormatError(
            f"config.json says `model_type` {str(config.get('model_type'))[:40]!r}, the manifest {model_class}. "
            "Files of two folders were mixed: copy the folder again."
        )
    if config.get("hidden_act") != "silu":
        raise NotNative(f"its activation function is {str(config.get('hidden_act'))[:40]!r}, not 'silu'")
    return _checked(_architecture(config, kind))


def _architecture(config: Mapping[str, Any], kind: str) -> Architecture:
    heads = _size(config, "num_attention_heads")
    hidden = _size(config, "hidden_size")
    divides = hidden % heads == 0 and kind != "qwen3"  # whose default is a constant
    return Architecture(
        kind=kind,
        hidden=hidden,
        ff=_size(config, "intermediate_size"),
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads"),
        head_dim=_size(config, "head_dim", hidden // heads if divides else None),
        vocab=_size(config, "vocab_size"),
        max_positions=_size(config, "max_position_embeddings"),
        rms_eps=_positive(config, "rms_norm_eps"),
        rope_scaling=_rope_scaling(config),
        sliding_window=_sliding_window(config, kind),
    )


def _checked(model: Architecture) -> Architecture:
    if model.heads % model.kv_heads:
        raise FormatError(
            f"config.json: `num_key_value_heads={model.kv_heads}` does not divide `num_attention_heads={model.heads}`."
        )
    if model.head_dim % 2:
        raise FormatError(f"config.json: `head_dim={model.head_dim}` must be even, for pairs are rotated.")
    if max(model.heads * model.head_dim, 2 * model.ff) > LARGEST_SIZE:
        raise FormatError(f"config.json: {model.heads} heads of {model.head_dim} and {model.ff} are too large.")
    return model


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        value = default
    if value is None:
        raise NotNative(f"config.json does not state `{name}`")
    if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
        raise FormatError(f"config.json: `{name}` must be a whole number from 1 to 2^31 - 1, not {str(value)[:40]}.")
    return value


def _positive(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = values.get(name)
    if value is None:
        value = default
    if value is None:
        raise NotNative(f"config.json does not state `{name}`")
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise FormatError(f"config.json: `{name}` must be a finite number above 0, not {str(value)[:40]}.")
    return float(value)


def _sliding_window(config: Mapping[str, Any], kind: str) -> int:
    """Return the window that all layers share, 0 for none."""
    types = config.get("layer_types")
    if types is not None and types != ["full_attention"] * len(types if isinstance(types, list) else ()):
        raise NotNative("its layers attend in different ways (`layer_types`)")
    if kind == "mistral":
        return 0 if config.get("sliding_window") is None else _size(config, "sliding_window")
    if config.get("use_sliding_window") and config.get("sliding_window") is not None and types is None:
        raise NotNative("only some of its layers have a sliding window (`max_window_layers`)")
    return 0


def _rope_scaling(config: Mapping[str, Any]) -> float:
    """Return the factor on cos and sin. Older configs call the object `rope_scaling`, and its type `type`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FormatError(f"config.json: `rope_parameters` must be an object, not {str(rope)[:40]}.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in _FIXED_ROPES:
        return 1.0
    if kind == "yarn":
        return _yarn_scaling(rope, config)
    raise NotNative(f"its rotary embedding is of type {str(kind)[:40]!r}, not one of {', '.join(_FIXED_ROPES)}, yarn")


def _yarn_scaling(rope: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    if rope.get("attention_factor") is not None:
        return _positive(rope, "attention_factor")
    if rope.get("factor") is None and rope.get("original_max_position_embeddings") is None:
        raise NotNative("config.json does not state the `factor` of its rotary embedding")
    trained_tokens = _positive(rope, "original_max_position_embeddings", 1.0)
    factor = _positive(rope, "factor", _size(config, "max_position_embeddings") / trained_tokens)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return _mscale(factor, _positive(rope, "mscale")) / _mscale(factor, _positive(rope, "mscale_all_dim"))
    return _mscale(factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
