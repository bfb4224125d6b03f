"""What transformers leaves out when it makes a config of a GGUF's metadata.

    tied embeddings     there is no `output.weight`
    biases              there is a tensor for one of them
    sizes               of a head (Gemma scales attention by it), of GPT-2's feed-forward part and positions
    vocabulary          the rows of the embedding
    windows             of layers that see the last tokens only, and which layers those are
    soft caps           of attention and logits
    rotary positions    `gguf_rope`

A key that changes what is computed, and that a model of the architecture does not follow, is refused by name.
"""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedConfig

from bitnet_train.errors import FormatError
from bitnet_train.gguf.file import ArrayOf, GgufFile
from bitnet_train.importers.gguf.rope import complete_rope

EMBEDDING = "token_embd.weight"
HEAD = "output.weight"
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}  # whose attention is scaled by another size than that of a head
_SLIDING = ("gemma2", "gemma3", "phi3")
BIAS_SWITCHES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
"""Fields of a config that give layers a bias -> llama.cpp's names of those layers."""
_SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("embedding_scale", "residual_scale", "logit_scale"), (1.0, 0.0)),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale"), (0.0,)),
    "attention.causal": (True,),
    "expert_count": (0,),
    "vocab_only": (False,),
}
"""Keys that llama.cpp computes with -> the values under which they change nothing."""


def complete_config(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> None:
    """Add to a config what its file says besides. Raises FormatError for what a config cannot say."""
    _refuse_unknown(gguf, architecture)
    if EMBEDDING not in gguf.tensors:
        raise FormatError(f"{gguf.path} has no {EMBEDDING}, so it holds no language model.")
    config.tie_word_embeddings = HEAD not in gguf.tensors
    for field, layers in BIAS_SWITCHES.items():
        if hasattr(config, field):
            setattr(config, field, has_bias(gguf, layers))
    for field, value in _sizes(config, gguf, architecture).items():
        if value and hasattr(config, field):
            setattr(config, field, value)
    _complete_windows(config, gguf, architecture)
    complete_rope(config, gguf, architecture)
    config.name_or_path = str(gguf.metadata.get("general.name", ""))


def has_bias(gguf: GgufFile, layers: tuple[str, ...]) -> bool:
    """Whether any block has a bias for one of these layers."""
    wanted = re.compile(rf"blk\.\d+\.({'|'.join(layers)})\.bias")
    return any(wanted.fullmatch(name) for name in gguf.tensors)


def _sizes(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> dict[str, Any]:
    def stated(key: str) -> Any:
        return gguf.metadata.get(f"{architecture}.{key}")

    key_length = stated("attention.key_length")
    sizes = {
        "head_dim": key_length,
        "n_inner": stated("feed_forward_length"),
        "n_positions": stated("context_length") if architecture == "gpt2" else None,
        "vocab_size": gguf.tensors[EMBEDDING].shape[0],
        **{key: stated(key) for key in _SOFT_CAPS},
    }
    if architecture in _LAYERS_OF_27B and key_length:
        is_27b = config.num_hidden_layers == _LAYERS_OF_27B[architecture]
        sizes["query_pre_attn_scalar"] = config.hidden_size // config.num_attention_heads if is_27b else key_length
    return sizes


def _complete_windows(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> None:
    """Windows where the architecture has them; llama.cpp knows none for the others, whatever a config is by default."""
    window = gguf.metadata.get(f"{architecture}.attention.sliding_window")
    if architecture in _SLIDING:
        if isinstance(window, int) and window > 0:
            config.sliding_window = window
    elif getattr(config, "model_type", None) == "mistral":
        config.sliding_window = None
    pattern = gguf.metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if pattern is not None and getattr(config, "layer_types", None):
        config.layer_types = _layer_types(config, gguf, f"{architecture}.attention.sliding_window_pattern", pattern)


def _layer_types(config: PreTrainedConfig, gguf: GgufFile, key: str, pattern: Any) -> list[str]:
    """Of a list, one flag a layer; of a number n, every n-th layer sees everything."""
    layers = range(config.num_hidden_layers)
    if isinstance(pattern, ArrayOf) and pattern.count == len(layers):
        slides = [bool(flag) for flag in gguf.numbers(key)]
    elif isinstance(pattern, int) and pattern > 0:
        slides = [(layer + 1) % pattern != 0 for layer in layers]
    else:
        raise FormatError(f"{gguf.path} is damaged: `{key}` says nothing of its {len(layers)} layers.")
    return ["sliding_attention" if flag else "full_attention" for flag in slides]


def _refuse_unknown(gguf: GgufFile, architecture: str) -> None:
    for key, neutral in _NEUTRAL.items():
        value = gguf.metadata.get(f"{architecture}.{key}")
        if value is not None and value not in neutral:
            raise FormatError(
                f"{gguf.path} says `{architecture}.{key}`={value}, which is not computed here for a model of "
                f"architecture {architecture}."
            )
