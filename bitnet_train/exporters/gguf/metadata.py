"""What the file says of the model besides its tokenizer: sizes, norms, positions, and what it was made from.

A window over the last tokens that llama.cpp does not apply in an architecture (Mistral, Qwen, Phi 3) becomes the
context length of the file: within it, attention over everything is the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitnet_train.exporters.gguf.block_type import Choice
from bitnet_train.exporters.gguf.limits import first_of, head_size, rotated_share
from bitnet_train.exporters.gguf.rope import Rope, add_rope
from bitnet_train.gguf.architecture import GgufArchitecture
from bitnet_train.importers.gguf.generation import SAMPLING_KEYS
from bitnet_train.packed.manifest import Manifest

if TYPE_CHECKING:
    from gguf import GGUFWriter

_SLIDING = ("gemma2", "gemma3")
_LAYER_NORM = ("gpt2", "phi2")
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class ModelKeys:
    """Everything the metadata of a model is written from."""

    architecture: GgufArchitecture
    config: Mapping[str, Any]
    rope: Rope | None
    vocab_size: int
    generation: Mapping[str, Any] = field(default_factory=dict)
    """`generation_config.json`."""


def add_model(writer: GGUFWriter, keys: ModelKeys, manifest: Manifest, choice: Choice) -> None:
    """Write `general.*` and the keys of the architecture."""
    writer.add_type("model")
    writer.add_name(manifest.base_model)
    blocks = " and ".join(choice.names)
    writer.add_description(f"1-bit weights trained as {blocks} blocks, written by bitnet-train")
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    writer.add_file_type(choice.main.file_type)
    _add_sizes(writer, keys)
    _add_norm(writer, keys)
    if keys.rope is not None:
        writer.add_rope_dimension_count(int(head_size(keys.config) * rotated_share(keys.config)))
        add_rope(writer, keys.rope)
    _add_sampling(writer, keys.generation)
    if keys.architecture.name in _SLIDING:
        _add_gemma(writer, keys.config)


def context_length(architecture: GgufArchitecture, config: Mapping[str, Any]) -> int:
    """Tokens that llama.cpp computes as the model was trained."""
    longest = int(first_of(config, "max_position_embeddings", "n_positions", "n_ctx"))
    window = ignored_window(architecture, config)
    return longest if window is None else min(longest, window)


def ignored_window(architecture: GgufArchitecture, config: Mapping[str, Any]) -> int | None:
    """The window of a sliding attention that llama.cpp does not apply in this architecture."""
    if architecture.name in _SLIDING or config.get("use_sliding_window") is False:
        return None
    window = config.get("sliding_window")
    return int(window) if window else None


def _add_sizes(writer: GGUFWriter, keys: ModelKeys) -> None:
    config = keys.config
    heads = int(first_of(config, "num_attention_heads", "n_head"))
    width = int(first_of(config, "hidden_size", "n_embd"))
    writer.add_vocab_size(keys.vocab_size)
    writer.add_context_length(context_length(keys.architecture, config))
    writer.add_embedding_length(width)
    writer.add_block_count(int(first_of(config, "num_hidden_layers", "n_layer")))
    writer.add_feed_forward_length(int(config.get("intermediate_size") or config.get("n_inner") or 4 * width))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    if config.get("head_dim"):
        writer.add_key_length(head_size(config))
        writer.add_value_length(head_size(config))


def _add_norm(writer: GGUFWriter, keys: ModelKeys) -> None:
    if keys.architecture.name in _LAYER_NORM:
        writer.add_layer_norm_eps(float(first_of(keys.config, "layer_norm_eps", "layer_norm_epsilon")))
    else:
        writer.add_layer_norm_rms_eps(float(first_of(keys.config, "rms_norm_eps")))


def _add_sampling(writer: GGUFWriter, generation: Mapping[str, Any]) -> None:
    """Write the sampling that the model's authors recommend; a model that they let choose greedily recommends none."""
    for name, key in SAMPLING_KEYS.items() if generation.get("do_sample") else ():
        value = generation.get(name)
        if isinstance(value, int | float) and name == "top_k":
            writer.add_int32(key, int(value))
        elif isinstance(value, int | float):
            writer.add_float32(key, value)


def _add_gemma(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_sliding_window(int(config["sliding_window"]))
    if config.get("layer_types"):
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(float(config["attn_logit_softcapping"]))
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
