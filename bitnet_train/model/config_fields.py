"""The fields of a Hugging Face config that are read here, in one place, whatever an architecture calls them.

Configs differ: BLOOM states no length, GPT-2 calls it `n_positions`, MPT `max_seq_len`, and a model with pictures keeps
all of this in the config of its language model. A length that nothing states is no limit.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from bitnet_train.errors import ConversionError

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def text_config(model: Any) -> PreTrainedConfig:
    """The config of the language model of a model, or of a config."""
    config = getattr(model, "config", model)
    return config.get_text_config() if isinstance(config, PreTrainedConfig) else config


def max_positions(model: Any) -> int | None:
    """The most tokens that a model can see at once; None where its config states no limit."""
    config = text_config(model)
    stated = (getattr(config, name, None) for name in _POSITIONS)
    return next((number for number in stated if isinstance(number, int) and number > 0), None)


def num_heads(model: Any) -> int:
    """Heads of the queries."""
    return int(_field(model, "num_attention_heads", "n_head", "n_heads"))


def num_key_value_heads(model: Any) -> int:
    """Heads of the keys and values: as many as of the queries where nothing else is stated."""
    config = text_config(model)
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1  # Falcon, GPT BigCode
    stated = (getattr(config, name, None) for name in ("num_key_value_heads", "num_kv_heads"))
    return int(next((number for number in stated if number), None) or num_heads(config))


def hidden_size(model: Any) -> int:
    """The width of the hidden states."""
    return int(_field(model, "hidden_size", "n_embd", "d_model"))


def num_layers(model: Any) -> int:
    """Decoder blocks."""
    return int(_field(model, "num_hidden_layers", "n_layer", "n_layers", "num_layers"))


def vocab_size(model: Any) -> int:
    """Tokens that a model knows."""
    return int(_field(model, "vocab_size"))


def drop_padding_beyond(config: PreTrainedConfig) -> None:
    """Take from a config a padding token that lies beyond its vocabulary."""
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        pad, size = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(size, int) and not 0 <= pad < size:
            part.pad_token_id = None


def _field(model: Any, *names: str) -> Any:
    config = text_config(model)
    value = next((found for name in names if (found := getattr(config, name, None)) is not None), None)
    if value is None:
        raise ConversionError(
            f"{type(config).__name__} states none of {', '.join(names)}, so this model cannot be worked on."
        )
    return value
