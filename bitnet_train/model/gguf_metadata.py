"""What the metadata of a GGUF says of its model: a Hugging Face config and tokenizer.

transformers knows llama.cpp's keys, so it reads them, from a copy of the file without tensors: it opens none of the
types it does not know, and copies nothing large. What it leaves out is added here:

    tied embeddings     there is no `output.weight`
    biases              there is a tensor for them
    sizes               of a head (Gemma scales attention by it), of GPT-2's feed-forward part and positions
    vocabulary          the rows of the embedding; first, last and padding token are the tokenizer's
    rotary positions    `rope.scaling.*`, and Llama 3's factors, which a GGUF holds as the tensor `rope_freqs.weight`

Before anything is built from a size it is compared with the tensors: a `block_count` of 2^31 would keep transformers
busy for hours.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from bitnet_train.errors import FormatError
from bitnet_train.model.gguf_file import ArrayOf, GgufFile
from bitnet_train.model.gguf_pre_tokenizer import apply_pre_tokenizer

_CONFIG, _TOKENIZER = "config.gguf", "tokenizer.gguf"
EMBEDDING = "token_embd.weight"
ROPE_FACTORS = "rope_freqs.weight"
_SIZES = (
    *("embedding_length", "feed_forward_length", "vocab_size", "rope.dimension_count"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
)
_LARGEST_CONTEXT = 1 << 24
_LAYERS_OF_27B = {"gemma2": 46, "gemma3": 62}  # whose attention is scaled by another size than that of a head
_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_CONTEXT = 8192  # of the models before their context was made longer; no file states it
_LLAMA3_FACTORS = (8.0, 16.0, 32.0)
_SAME_FACTOR = 1e-4


def architecture_name(gguf: GgufFile) -> str:
    """`general.architecture`. Raises FormatError when the file does not state one."""
    name = gguf.metadata.get("general.architecture")
    if not isinstance(name, str) or not name:
        raise FormatError(f"{gguf.path} does not say its `general.architecture`, so nobody knows how to compute it.")
    return name


def check_sizes(gguf: GgufFile) -> None:
    """Raise FormatError when the metadata describes a larger model than the tensors are."""
    architecture = architecture_name(gguf)
    largest = max((size for tensor in gguf.tensors.values() for size in tensor.shape), default=0)
    limits = {"block_count": len(gguf.tensors), **dict.fromkeys(_SIZES, largest), "context_length": _LARGEST_CONTEXT}
    for key, limit in limits.items():
        value = gguf.metadata.get(f"{architecture}.{key}", 1)
        if isinstance(value, ArrayOf):  # one number a layer
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise FormatError(
                f"{gguf.path} is damaged: `{architecture}.{key}` is {value!r}, but its {len(gguf.tensors)} tensors "
                f"allow 0 to {limit}."
            )


def read_metadata(gguf: GgufFile) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Config and tokenizer of the model in a GGUF file.

    Raises FormatError when transformers cannot make them from the metadata, or the rotary positions have no form in a
    Hugging Face config.
    """
    architecture = architecture_name(gguf)
    check_sizes(gguf)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (
            (_CONFIG, gguf.without_tensors(vocabulary=False)),  # which takes transformers seconds
            (_TOKENIZER, gguf.without_tensors()),
        ):
            (Path(folder) / name).write_bytes(content)
        try:
            with _quiet_transformers():
                config = AutoConfig.from_pretrained(folder, gguf_file=_CONFIG, trust_remote_code=False)
                tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_TOKENIZER, trust_remote_code=False)
        except Exception as error:  # of any kind: the metadata is taken apart without a look at it
            reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
            raise FormatError(
                f"transformers cannot make a config and a tokenizer from the metadata of {gguf.path} (architecture "
                f"{architecture}): {reason}."
            ) from error
    _complete(config, gguf, architecture)
    tokenizer = _within(tokenizer, config.vocab_size)
    restore_pre_tokenizer(tokenizer, gguf)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    return config, tokenizer


def restore_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, gguf: GgufFile) -> None:
    """Let a byte-level tokenizer cut text as the file names it: transformers gives every one of them GPT-2's cuts.

    Warns where the name is not known here: its tokens may then be others than those the model was trained on.
    """
    name = gguf.metadata.get("tokenizer.ggml.pre", "default")
    if gguf.metadata.get("tokenizer.ggml.model") != "gpt2" or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return
    if not apply_pre_tokenizer(tokenizer.backend_tokenizer, "gpt-2" if name == "default" else str(name)):
        warnings.warn(
            f"{gguf.path} names the pre-tokenizer {name!r}, which is not known here: its text is cut as GPT-2's, which "
            "can give other tokens than the model was trained on. Prefer the Hugging Face folder of this model.",
            stacklevel=2,
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its warnings: the config is checked before it is complete."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def _within(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> PreTrainedTokenizerBase:
    """The same tokenizer without the tokens that transformers' class adds to the file's, beyond the embedding."""
    assert isinstance(tokenizer, PreTrainedTokenizerFast), "every tokenizer of a GGUF is one of the tokenizers library"
    beyond = {token for token, number in tokenizer.get_vocab().items() if number >= num_rows}
    if not beyond:
        return tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in beyond]
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if token not in beyond}
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **special)


def _complete(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> None:
    config.tie_word_embeddings = "output.weight" not in gguf.tensors
    for attribute, tensor in (("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_gate.bias")):
        if hasattr(config, attribute):
            setattr(config, attribute, tensor in gguf.tensors)
    key_length = gguf.metadata.get(f"{architecture}.attention.key_length")
    sizes = {
        "head_dim": key_length,
        "n_inner": gguf.metadata.get(f"{architecture}.feed_forward_length"),
        "n_positions": gguf.metadata.get(f"{architecture}.context_length") if architecture == "gpt2" else None,
        "vocab_size": gguf.tensors[EMBEDDING].shape[0] if EMBEDDING in gguf.tensors else None,
    }
    if architecture in _LAYERS_OF_27B and key_length:
        is_27b = config.num_hidden_layers == _LAYERS_OF_27B[architecture]
        sizes["query_pre_attn_scalar"] = config.hidden_size // config.num_attention_heads if is_27b else key_length
    for attribute, size in sizes.items():
        if size and hasattr(config, attribute):
            setattr(config, attribute, size)
    rope = _rope_parameters(config, gguf, architecture)
    if rope is not None:
        config.rope_parameters = _with_rope(config.rope_parameters, rope)
    config.name_or_path = str(gguf.metadata.get("general.name", ""))


def _with_rope(parameters: dict[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
    """Scale the positions of all layers, or of those that see everything where others see a window."""
    if "full_attention" in parameters:
        return {**parameters, "full_attention": {**parameters["full_attention"], **rope}}
    return {**parameters, **rope}


def _rope_parameters(config: PreTrainedConfig, gguf: GgufFile, architecture: str) -> dict[str, Any] | None:
    scaling = {
        key.removeprefix(f"{architecture}.rope.scaling."): value
        for key, value in gguf.metadata.items()
        if key.startswith(f"{architecture}.rope.scaling.")
    }
    kind, factor = scaling.get("type", "none"), scaling.get("factor")
    if kind == "none" and ROPE_FACTORS in gguf.tensors:
        return _llama3_parameters(config, gguf)
    if kind == "none":
        return None
    context = scaling.get("original_context_length")
    is_number = isinstance(factor, float) and math.isfinite(factor) and factor > 0
    if kind == "linear" and is_number:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and is_number and isinstance(context, int):
        ramp = {key: scaling[f"yarn_{key}"] for key in ("beta_fast", "beta_slow") if f"yarn_{key}" in scaling}
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": context, **ramp}
    raise FormatError(f"{gguf.path} scales its rotary positions in a way that is not read here: {scaling}.")


def _llama3_parameters(config: PreTrainedConfig, gguf: GgufFile) -> dict[str, Any]:
    """The parameters that give the factors in the file; no other set of them is known."""
    tensor = gguf.tensors[ROPE_FACTORS]
    stored = gguf.rows(ROPE_FACTORS).view("<f4").ravel() if tensor.type_name == "F32" else np.empty(0)
    for factor in _LLAMA3_FACTORS:
        parameters = {**_LLAMA3, "factor": factor, "original_max_position_embeddings": _LLAMA3_CONTEXT}
        expected = llama3_factors(config.rope_parameters.get("rope_theta", 1e4), 2 * stored.size, parameters)
        if stored.size and np.allclose(stored, expected, rtol=_SAME_FACTOR):
            return parameters
    raise FormatError(
        f"{gguf.path} scales its rotary positions by {ROPE_FACTORS}, whose numbers are none of Llama 3's. "
        "There is no Hugging Face config for them."
    )


def llama3_factors(theta: float, head_size: int, parameters: Mapping[str, Any]) -> np.ndarray:
    """What Llama 3 divides each of head_size / 2 rotary frequencies by, float64; as a GGUF stores it."""
    frequency = theta ** -(np.arange(0, head_size, 2) / head_size)
    turns = parameters["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high, factor = (parameters[key] for key in ("low_freq_factor", "high_freq_factor", "factor"))
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - share) / factor + share)
