"""Small sound models to damage, in every format that is read; and the tokenizers that go with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a config that asks for another repository asks in vain

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    SmolLM3Config,
)
from transformers.utils import logging

from bitnet_train import progress
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.model.convert import convert
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import WeightScheme

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 258,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 257,
}
_GEMMA = {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 24}
OTHER_CLASSES = MappingProxyType(
    {
        "gemma2": lambda **sizes: Gemma2Config(**{**sizes, **_GEMMA}, sliding_window=2),
        "gemma3": lambda **sizes: Gemma3TextConfig(
            **{**sizes, **_GEMMA}, sliding_window=2, layer_types=["sliding_attention", "full_attention"]
        ),
        "smollm3": lambda **sizes: SmolLM3Config(**sizes, pad_token_id=None, no_rope_layers=[0], num_key_value_heads=1),
        "olmo2": Olmo2Config,
        "granite": lambda **sizes: GraniteConfig(**sizes, attention_multiplier=0.25, logits_scaling=8.0),
        "phi3": lambda **sizes: Phi3Config(**sizes, pad_token_id=None, sliding_window=3),
    }
)
"""Classes of models whose config.json states what a Llama's does not."""


def byte_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token a byte, one merge, and `special` tokens; the last of these ends a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*letters, "th", *special])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[-1])


def packed_folder(folder: Path, kind: str = "ternary") -> Path:
    """Write a packed folder of one layer, or of two of one of `OTHER_CLASSES`.

    `kind` "int8_tables" or "int4_tables" has embedding and head as such.
    """
    quiet()
    torch.manual_seed(0)
    make_config = OTHER_CLASSES.get(kind, LlamaConfig)
    model = AutoModelForCausalLM.from_config(make_config(**_SIZES), dtype=torch.float32).eval()
    convert(model, weight=WeightScheme("ternary", "tensor"))
    stored = kind.removesuffix("_tables")
    tables: dict[str, Any] = {"embedding": stored, "head": stored} if stored != kind else {}
    export_packed(model, byte_tokenizer("<end>"), folder, **tables)
    return folder


def exported(door: str, packed: Path, folder: Path) -> Path:
    """Write a packed folder as `gguf` or `hf_bitnet`, the latter with an index that names its weights."""
    export_as(door, packed, folder, ExportOptions(type="q2_0", pre_tokenizer="gpt-2"))
    if door == "hf_bitnet":
        whole = folder / "model.safetensors"
        content = whole.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        names = [name for name in header if name != "__metadata__"]
        whole.rename(folder / SHARD)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, SHARD)}))
    return folder


def quiet() -> None:
    """Show neither warnings of transformers nor bars."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    progress.be_quiet(True)
