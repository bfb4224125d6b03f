"""The rotary positions of a model: where its frequencies lie in the folder, and the factor on cos and sin.

Frequencies come from the folder's tensors (the exporter stores those of the training run), so only the factor is read
from config.json:

    rope type           factor on cos and sin
    default, linear, llama3    1
    yarn                       attention_factor, else (0.1 m ln s + 1) / (0.1 n ln s + 1) of the paper, arXiv 2309.00071
    longrope                   attention_factor, else sqrt(1 + ln s / ln n), n the tokens trained on, arXiv 2402.13753
    dynamic                    1

The last two have other frequencies for texts that are longer than the model was trained on: the context ends there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.runtime.native.config_numbers import NotNative, positive, size

_MODULE = "model.rotary_emb."
_FIXED = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Rope:
    """Frequencies float32 [half] under the name `tensor`, and the factor on their cos and sin.

    `unused` is what transformers keeps beside them. Texts longer than `most_tokens`, if given, have other frequencies.
    """

    tensor: str
    unused: str
    half: int
    scaling: float
    most_tokens: int | None = None


def read_rope(config: Mapping[str, Any], head_dim: int, layer_type: str = "", *, is_partial: bool = False) -> Rope:
    """Return the rotary positions of a model, or those of its layers of one type.

    `is_partial` says whether transformers leaves a part of a head as it is where `partial_rotary_factor` says so.

    Raises
    ------
    NotNative
        When they are of a type that is not known here.
    FormatError
        When the numbers describe none.
    """
    rope = _parameters(config, layer_type)
    kind = rope.get("rope_type", rope.get("type", "default"))
    prefix = f"{_MODULE}{layer_type}_" if layer_type else _MODULE
    now, original = f"{prefix}inv_freq", f"{prefix}original_inv_freq"
    half = _half(rope, head_dim) if is_partial else head_dim // 2
    if kind in _FIXED:
        return Rope(now, original, half, 1.0)
    if kind == "yarn":
        return Rope(now, original, half, _yarn_scaling(rope, config))
    # Of these the model's own are those of the text that it read last, which may have been a long one.
    if kind == "longrope":
        return Rope(original, now, half, _longrope_scaling(rope, config), _trained_tokens(rope, config))
    if kind == "dynamic":
        return Rope(original, now, half, 1.0, size(config, "max_position_embeddings"))
    known = ", ".join((*_FIXED, "yarn", "longrope", "dynamic"))
    raise NotNative(f"its rotary embedding is of type {str(kind)[:40]!r}, not one of {known}")


def _trained_tokens(rope: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    return size(config, "original_max_position_embeddings", rope.get("original_max_position_embeddings"))


def _half(rope: Mapping[str, Any], head_dim: int) -> int:
    """Return the number of frequencies: for the pairs of the share of a head that is rotated."""
    share = positive(rope, "partial_rotary_factor", 1.0)
    pairs = (int(head_dim * min(share, 2.0)) + 1) // 2
    if not 1 <= pairs <= head_dim // 2:
        raise FormatError(f"config.json: `partial_rotary_factor={share}` is no share of a head of {head_dim}.")
    return pairs


def _parameters(config: Mapping[str, Any], layer_type: str) -> dict[str, Any]:
    """Return the object with a rope's numbers. Older configs call it `rope_scaling`, and its type `type`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(rope, dict) and layer_type:
        rope = rope.get(layer_type)
        if rope is None:
            raise NotNative(f"config.json does not state `rope_parameters.{layer_type}`")
    if not isinstance(rope, dict):
        raise FormatError(f"config.json: `rope_parameters` must be an object, not {str(rope)[:40]}.")
    return rope


def _yarn_scaling(rope: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    if rope.get("attention_factor") is not None:
        return positive(rope, "attention_factor")
    if rope.get("factor") is None and rope.get("original_max_position_embeddings") is None:
        raise NotNative("config.json does not state the `factor` of its rotary embedding")
    trained_tokens = positive(rope, "original_max_position_embeddings", 1.0)
    factor = positive(rope, "factor", size(config, "max_position_embeddings") / trained_tokens)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return _mscale(factor, positive(rope, "mscale")) / _mscale(factor, positive(rope, "mscale_all_dim"))
    return _mscale(factor, 1.0)


def _longrope_scaling(rope: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    trained_tokens = _trained_tokens(rope, config)
    if rope.get("attention_factor") is not None:
        return positive(rope, "attention_factor")
    factor = positive(rope, "factor", size(config, "max_position_embeddings") / trained_tokens)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(max(2, trained_tokens)))


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
