"""A Llama with random weights and billions of them, written to a folder one layer at a time."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from scripts.llama_cpp.models import byte_tokenizer

SHAPES = {  # billions of weights -> hidden, ff, layers
    0.1: (768, 2048, 14),
    1.0: (2048, 5632, 24),
    3.0: (3072, 8192, 30),
}
VOCAB = 32000
ROLES = {
    "self_attn.q_proj": ("hidden", "hidden"),
    "self_attn.k_proj": ("kv", "hidden"),
    "self_attn.v_proj": ("kv", "hidden"),
    "self_attn.o_proj": ("hidden", "hidden"),
    "mlp.gate_proj": ("ff", "hidden"),
    "mlp.up_proj": ("ff", "hidden"),
    "mlp.down_proj": ("hidden", "ff"),
}
ENDS = ("model.embed_tokens", "lm_head")
NORMS = ("input_layernorm", "post_attention_layernorm")


def llama_config(billions: float, dtype: torch.dtype) -> LlamaConfig:
    """Return the configuration of a Llama of that size, with heads of 128 and an untied head."""
    hidden, ff, layers = SHAPES[billions]
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=min(8, hidden // 128),
        vocab_size=VOCAB,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
    )


def write_llama(folder: Path, config: LlamaConfig) -> tuple[list[str], int]:
    """Write configuration, tokenizer, a shard a layer; return the names of the blocks' linears, and their weights."""
    folder.mkdir(parents=True)
    size = {"hidden": config.hidden_size, "ff": config.intermediate_size}
    size["kv"] = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    torch.manual_seed(0)
    places: dict[str, str] = {}
    names: list[str] = []

    def shard(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file({key: t.to(config.dtype) for key, t in tensors.items()}, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    count = 0
    for index in range(config.num_hidden_layers):
        prefix = f"model.layers.{index}"
        tensors = {f"{prefix}.{norm}.weight": torch.ones(config.hidden_size) for norm in NORMS}
        for role, (rows, inputs) in ROLES.items():
            names.append(f"{prefix}.{role}")
            tensors[f"{names[-1]}.weight"] = torch.randn(size[rows], size[inputs]) * 0.02
            count += size[rows] * size[inputs]
        shard(f"layer-{index:03}.safetensors", tensors)
    ends = {f"{name}.weight": torch.randn(VOCAB, config.hidden_size).bfloat16() for name in ENDS}
    shard("ends.safetensors", {**ends, "model.norm.weight": torch.ones(config.hidden_size)})
    index_file = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    config.save_pretrained(folder)
    byte_tokenizer(VOCAB).save_pretrained(folder)
    return names, count


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())
