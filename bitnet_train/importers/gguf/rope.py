"""Rotary positions as a GGUF states them, as `rope_parameters` of a Hugging Face config.

    none                    no key `rope.scaling.*`
    llama3                  the tensor `rope_freqs.weight`, float32 [D / 2], divides the frequencies
    linear                  `rope.scaling.factor`, or `rope.scale_linear` of older files; the type may be left out
    yarn                    factor, original context, bounds of the ramp, and what attention is multiplied by
    longrope                two sets of factors, `rope_factors_short.weight` and `rope_factors_long.weight`
    a share of each head    `rope.dimension_count` below the size of a head

What a Hugging Face config cannot say is refused: a scaling that is left out would compute nonsense without a word.
Source: `llm_load_hparams` and `ggml_rope_yarn` of llama.cpp, transformers' `modeling_rope_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from bitnet_train.errors import FormatError
from bitnet_train.gguf.file import GgufFile

ROPE_FACTORS = "rope_freqs.weight"
_SHORT_FACTORS, _LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
ROPE_TENSORS = (ROPE_FACTORS, _SHORT_FACTORS, _LONG_FACTORS)
"""Tensors of a GGUF that are part of the config."""

_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_CONTEXTS = (8192, *(1 << exponent for exponent in range(5, 21)))
"""Contexts of models before theirs was made longer; no file states it. All of Llama 3 have the first."""
_SAME_FACTOR = 1e-4
_PARTLY_ROTATED = ("phi3",)
_READ = {
    "none": {"factor"},  # which llama.cpp does not use then
    "linear": {"factor"},
    "yarn": {"factor", "original_context_length", "yarn_beta_fast", "yarn_beta_slow", "yarn_attn_factor"},
    "longrope": {"original_context_length", "attn_factor", "factor"},
}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"attn_factor": (1.0,), "yarn_attn_factor": (1.0,)}
_NEUTRAL_OF_YARN: Mapping[str, tuple[Any, ...]] = {**_NEUTRAL, "yarn_ext_factor": (1.0, -1.0)}
_SAYS_NOTHING = {"type", "finetuned", "original_context_length"}


def complete_rope(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> None:
    """Give a config the rotary positions of its file. Raises FormatError for those that no config can state."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        _require_unscaled(gguf, architecture)
        return
    found = _scaling(config, gguf, architecture) or {}
    sliding = parameters.get("sliding_attention")
    if "full_attention" in parameters:  # and others see a window, with positions that are not scaled
        parameters = {**parameters, "full_attention": {**parameters["full_attention"], **found}}
        theta = gguf.metadata.get(f"{architecture}.rope.freq_base_swa")
        if theta and isinstance(sliding, dict):
            parameters["sliding_attention"] = {**sliding, "rope_theta": float(theta)}
    else:
        parameters = {**parameters, **found, **_share_of_head(config, gguf, architecture)}
    config.rope_parameters = parameters
    if found.get("rope_type") == "longrope" and hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = found["original_max_position_embeddings"]


def llama3_factors(theta: float, head_size: int, parameters: Mapping[str, Any]) -> np.ndarray:
    """What Llama 3 divides each of head_size / 2 rotary frequencies by, float64; as a GGUF stores it."""
    frequency = theta ** -(np.arange(0, head_size, 2) / head_size)
    turns = parameters["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high, factor = (parameters[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - share) / factor + share)


def _require_unscaled(gguf: GgufFile, architecture: str) -> None:
    stated = sorted(_stated(gguf, architecture)) + [name for name in ROPE_TENSORS if name in gguf.tensors]
    if stated:
        raise FormatError(
            f"{gguf.path} states {stated[0]}, and a model of architecture {architecture} rotates nothing."
        )


def _stated(gguf: GgufFile, architecture: str) -> dict[str, Any]:
    """The keys under `rope.scaling.`, without that; `factor` is `rope.scale_linear` in older files."""
    prefix = f"{architecture}.rope.scaling."
    stated = {key.removeprefix(prefix): value for key, value in gguf.metadata.items() if key.startswith(prefix)}
    old = gguf.metadata.get(f"{architecture}.rope.scale_linear")
    return {"factor": old, **stated} if old else stated


def _scaling(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> dict[str, Any] | None:
    stated = _stated(gguf, architecture)
    kind = _kind(gguf, stated)
    if kind not in _READ:
        raise _refusal(gguf, stated)
    neutral = _NEUTRAL_OF_YARN if kind == "yarn" else _NEUTRAL
    for key, value in stated.items():
        if key not in _READ[kind] | _SAYS_NOTHING and value not in neutral.get(key, ()):
            raise _refusal(gguf, stated)
    if ROPE_FACTORS in gguf.tensors and not _is_neutral(gguf):
        if kind != "none":
            raise _refusal(gguf, {**stated, ROPE_FACTORS: "factors"})
        return _llama3(config, gguf)
    match kind:
        case "linear":
            return {"rope_type": "linear", "factor": _factor(gguf, stated)}
        case "yarn":
            return _yarn(gguf, stated)
        case "longrope":
            return _longrope(config, gguf, stated)
    return None


def _kind(gguf: GgufFile, stated: Mapping[str, Any]) -> str:
    """The type of the scaling; llama.cpp takes a factor without a type as linear, and two sets as longrope."""
    if _LONG_FACTORS in gguf.tensors or _SHORT_FACTORS in gguf.tensors:
        return "longrope" if stated.get("type", "longrope") in ("longrope", "none") else str(stated["type"])
    return str(stated.get("type", "linear" if stated.get("factor", 1.0) not in (0.0, 1.0) else "none"))


def _factor(gguf: GgufFile, stated: Mapping[str, Any]) -> float:
    factor = stated.get("factor")
    if not isinstance(factor, float) or not math.isfinite(factor) or factor <= 0:
        raise _refusal(gguf, stated)
    return factor


def _yarn(gguf: GgufFile, stated: Mapping[str, Any]) -> dict[str, Any]:
    factor, context = _factor(gguf, stated), stated.get("original_context_length")
    if not isinstance(context, int):
        raise _refusal(gguf, stated)
    found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": context}
    found |= {key: stated[f"yarn_{key}"] for key in ("beta_fast", "beta_slow") if f"yarn_{key}" in stated}
    times = stated.get("yarn_attn_factor", 1.0)
    return found if times == 1.0 else {**found, "attention_factor": times * (1 + 0.1 * math.log(max(factor, 1.0)))}


def _longrope(config: PreTrainedConfig, gguf: GgufFile, stated: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in (_SHORT_FACTORS, _LONG_FACTORS) if name not in gguf.tensors]
    if missing:
        raise FormatError(f"{gguf.path} scales its rotary positions as longrope, and has no {missing[0]}.")
    short, long = (_floats(gguf, name) for name in (_SHORT_FACTORS, _LONG_FACTORS))
    context = stated.get("original_context_length", config.max_position_embeddings)
    if not isinstance(context, int) or min(short.size, long.size) == 0:
        raise _refusal(gguf, stated)
    return {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "original_max_position_embeddings": context,
        "attention_factor": float(stated.get("attn_factor", 1.0)),
    }


def _llama3(config: PreTrainedConfig, gguf: GgufFile) -> dict[str, Any]:
    """The parameters that give the factors in the file; no other set of them is known."""
    stored = _floats(gguf, ROPE_FACTORS)
    largest = float(f"{stored.max(initial=0):.6g}")
    for context in _LLAMA3_CONTEXTS:
        parameters = {**_LLAMA3, "factor": largest, "original_max_position_embeddings": context}
        if stored.size == 0 or not 1 < largest < math.inf:
            break
        expected = llama3_factors(config.rope_parameters.get("rope_theta", 1e4), 2 * stored.size, parameters)
        if np.allclose(stored, expected, rtol=_SAME_FACTOR):
            return parameters
    raise FormatError(
        f"{gguf.path} scales its rotary positions by {ROPE_FACTORS}, whose numbers are none of Llama 3's. "
        "There is no Hugging Face config for them."
    )


def _is_neutral(gguf: GgufFile) -> bool:
    stored = _floats(gguf, ROPE_FACTORS)
    return stored.size > 0 and bool((stored == 1).all())


def _floats(gguf: GgufFile, name: str) -> np.ndarray:
    """A tensor of float32 numbers; none of them where it is of another type."""
    return gguf.rows(name).view("<f4").ravel() if gguf.tensors[name].type_name == "F32" else np.empty(0, np.float32)


def _share_of_head(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> dict[str, float]:
    rotated = gguf.metadata.get(f"{architecture}.rope.dimension_count")
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    usual = config.rope_parameters.get("partial_rotary_factor")
    if not isinstance(rotated, int) or rotated == int(head_size * (usual or 1)):
        return {}
    if usual is None and architecture not in _PARTLY_ROTATED:
        raise FormatError(
            f"{gguf.path} rotates {rotated} of the {head_size} values of a head (`{architecture}.rope.dimension_count`)"
            f", and {type(config).__name__} rotates all of them."
        )
    return {"partial_rotary_factor": rotated / head_size}


def _refusal(gguf: GgufFile, stated: Mapping[str, Any]) -> FormatError:
    return FormatError(f"{gguf.path} scales its rotary positions in a way that is not read here: {dict(stated)}.")
