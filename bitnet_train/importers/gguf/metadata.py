"""What the metadata of a GGUF says of its model: a Hugging Face config and tokenizer.

transformers knows llama.cpp's keys, so it reads them, from a copy of the file without tensors: it opens none of the
types it does not know, and copies nothing large. What it leaves out is added (`gguf_config`); first, last and padding
token are the tokenizer's.

Before anything is built from a size it is compared with the tensors: a `block_count` of 2^31 would keep transformers
busy for hours.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bitnet_train.errors import FormatError
from bitnet_train.gguf.file import ArrayOf, GgufFile
from bitnet_train.gguf.pre_tokenizer import apply_pre_tokenizer
from bitnet_train.importers.gguf.config import complete_config
from bitnet_train.model.config_fields import drop_padding_beyond
from bitnet_train.model.quiet import quiet_transformers
from bitnet_train.rust_panic import panics_as_errors

_CONFIG, _TOKENIZER = "config.gguf", "tokenizer.gguf"
_SIZES = (
    *("embedding_length", "feed_forward_length", "vocab_size", "rope.dimension_count"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
)
_LARGEST_CONTEXT = 1 << 24


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
            with quiet_transformers(), panics_as_errors():
                config = AutoConfig.from_pretrained(folder, gguf_file=_CONFIG, trust_remote_code=False)
                tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_TOKENIZER, trust_remote_code=False)
        except Exception as error:  # of any kind: the metadata is taken apart without a look at it
            reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
            raise FormatError(
                f"transformers cannot make a config and a tokenizer from the metadata of {gguf.path} (architecture "
                f"{architecture}): {reason}."
            ) from error
    complete_config(config, gguf, architecture)
    tokenizer = _within(tokenizer, config.vocab_size)
    restore_pre_tokenizer(tokenizer, gguf)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    drop_padding_beyond(config)
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
