"""Small packed folders to export: random models of every family, with or without a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from bitnet_train.model.convert import convert
from bitnet_train.model.select import Selection
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {**SIZES, "head_dim": 32}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "smollm": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, sliding_window=32),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=32),
    "gemma": GemmaConfig(**GEMMA),
    "gemma2": Gemma2Config(**GEMMA, query_pre_attn_scalar=32, sliding_window=16),
    "gemma3": Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=32, sliding_window=16),
    "phi": PhiConfig(**{**SIZES, "num_key_value_heads": 4}),
    "phi3": Phi3Config(**SIZES),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=128, n_layer=2, n_head=4, n_positions=64, n_inner=256),
}
ONE_BIT_TABLES = ("attention", "mlp", "embedding", "head")


def pack(
    folder: Path,
    config: PreTrainedConfig | None = None,
    weight: WeightScheme | None = None,
    tokenizer=None,
    selection: Selection | None = None,
    **tables: str,
) -> Path:
    """Pack a random model whose biases and norms are not the trivial 0 and 1."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config or FAMILIES["llama"], dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    convert(
        model, selection=selection or Selection(), weight=weight or WeightScheme(), activation=ActivationScheme("int8")
    )
    export_packed(model, tokenizer, folder, {"base_model": "someone/random"}, **tables)
    return folder


def config_of(folder: Path) -> dict:
    """The plain config.json of a packed folder."""
    return json.loads((folder / "config.json").read_text())
