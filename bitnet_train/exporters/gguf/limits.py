"""What llama.cpp takes for granted of an architecture. A model that is otherwise would load and compute something else.

The keys are those of a Hugging Face config. Source: the graphs in src/models/*.cpp of llama.cpp. What it can be told is
in `metadata`; what is here it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.gguf.architecture import GgufArchitecture

_SILU = ("silu", "swish")
_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_ACTIVATION = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "phi3"), ("hidden_act", _SILU)),
    "gemma": ("hidden_act", _GELU),
    **dict.fromkeys(("gemma2", "gemma3"), ("hidden_activation", _GELU)),
    "phi2": ("hidden_act", _GELU),
    "gpt2": ("activation_function", _GELU),
}
_SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "gemma3": {"attn_logit_softcapping": (None,), "use_bidirectional_attention": (None, False)},
    "phi2": {"qk_layernorm": (None, False)},
    "gpt2": {
        "scale_attn_weights": (None, True),
        "scale_attn_by_inverse_layer_idx": (None, False),
        "add_cross_attention": (None, False),
    },
}
_HEADS_FILL_HIDDEN = ("qwen2", "phi2", "phi3", "gpt2")
_PARTIAL_ROTATION = ("phi2", "phi3", "gpt2")
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}


def require_supported(architecture: GgufArchitecture, config: Mapping[str, Any]) -> None:
    """Raise FormatError naming the first setting of the config that llama.cpp's graph does not follow."""
    key, allowed = _ACTIVATION[architecture.name]
    if config.get(key) not in allowed:
        raise _refusal(architecture, key, config.get(key), " or ".join(allowed[:1]))
    for key, values in _SETTINGS.get(architecture.name, {}).items():
        if config.get(key) not in values:
            raise _refusal(architecture, key, config.get(key), str(values[-1]))
    for check in (_check_heads, _check_rotation, _check_gemma):
        check(architecture, config)


def head_size(config: Mapping[str, Any]) -> int:
    """Values of one attention head."""
    width, heads = first_of(config, "hidden_size", "n_embd"), first_of(config, "num_attention_heads", "n_head")
    return int(config.get("head_dim") or width // heads)


def first_of(config: Mapping[str, Any], *keys: str) -> Any:
    """Return the value of the first of these keys that the config has. Raises FormatError when it has none."""
    for key in keys:
        if config.get(key) is not None:
            return config[key]
    raise FormatError(f"config.json has no {' nor '.join(keys)}. Export the model again.")


def _check_heads(architecture: GgufArchitecture, config: Mapping[str, Any]) -> None:
    heads, width = first_of(config, "num_attention_heads", "n_head"), first_of(config, "hidden_size", "n_embd")
    if architecture.name in _HEADS_FILL_HIDDEN and heads * head_size(config) != width:
        raise _refusal(
            architecture, "head_dim", head_size(config), f"hidden_size / num_attention_heads = {width // heads}"
        )


def _check_rotation(architecture: GgufArchitecture, config: Mapping[str, Any]) -> None:
    share = rotated_share(config)
    if share != 1 and architecture.name not in _PARTIAL_ROTATION:
        raise _refusal(architecture, "partial_rotary_factor", share, "1")


def rotated_share(config: Mapping[str, Any]) -> float:
    """The share of each head that is rotated: 1 but for the Phi family."""
    rope = config.get("rope_parameters") or {}
    return float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)


def _check_gemma(architecture: GgufArchitecture, config: Mapping[str, Any]) -> None:
    if architecture.name not in _LAYERS_OF_27B:
        return
    is_27b = config.get("num_hidden_layers") == _LAYERS_OF_27B[architecture.name]
    usual = config["hidden_size"] // config["num_attention_heads"] if is_27b else head_size(config)
    if config.get("query_pre_attn_scalar") != usual:
        raise _refusal(architecture, "query_pre_attn_scalar", config.get("query_pre_attn_scalar"), str(usual))
    capped: Callable[[str], Any] = config.get
    if architecture.name == "gemma2":
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if not capped(key):
                raise _refusal(architecture, key, capped(key), "a positive number")


def _refusal(architecture: GgufArchitecture, key: str, value: Any, allowed: str) -> FormatError:
    return FormatError(
        f"`{key}={value}` in config.json: llama.cpp computes {architecture.name} with {allowed} and cannot be told "
        "otherwise. Use another `export.format` for this model."
    )
