"""Names, rows and offsets of every GGUF architecture, held against the `gguf` package and against a rotation."""

from __future__ import annotations

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from bitnet_train.errors import ConversionError
from bitnet_train.gguf.architecture import ARCHITECTURES, architecture_named, architecture_of
from tests.fixtures.families import CONFIGS

BLOCKS = 3
FAMILIES = {name: make().to_dict() for name, make in CONFIGS.items()}


def packages_map(architecture):
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)
    return gguf.get_tensor_name_map(arch, BLOCKS)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda row: row.name)
def test_names_are_those_of_the_gguf_package_and_come_back(architecture):
    names = packages_map(architecture)
    for module in architecture.modules:
        hf_name = f"{module.format(2)}.weight"
        expected = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert architecture.to_gguf(hf_name) == expected
        assert architecture.to_hf(expected) == hf_name


@pytest.mark.parametrize("family", CONFIGS)
def test_every_tensor_of_a_real_model_has_a_name(family):
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    architecture = architecture_of(model.config.to_dict())
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    nameless = [name for name in model.state_dict() if architecture.to_gguf(name) is None]
    assert set(nameless) <= tied
    assert all(architecture.is_left_out(name) for name, _ in model.named_buffers() if "attn" not in name)


@pytest.mark.parametrize("family", CONFIGS)
def test_rows_come_back(family):
    config = FAMILIES[family]
    architecture = architecture_of(config)
    for module in architecture.modules:
        rows = torch.arange(64).reshape(64, 1)
        there = architecture.rows_to_gguf(module.format(1), rows, config)
        assert torch.equal(architecture.rows_from_gguf(module.format(1), there, config), rows)
        moved = architecture.name == "llama" and module.endswith(("q_proj", "k_proj"))
        assert moved != torch.equal(there, rows)


def test_a_head_of_llama_rotates_neighbours_where_hugging_face_rotates_halves():
    config = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}
    llama = architecture_of(config)
    query = llama.rows_to_gguf("model.layers.0.self_attn.q_proj", torch.arange(16), config)
    assert query.tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]
    key = llama.rows_to_gguf("model.layers.0.self_attn.k_proj", torch.arange(16), config)
    assert key.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_the_one_scale_of_a_tensor_stays():
    config = {"model_type": "llama", "num_attention_heads": 4}
    scale = torch.tensor([[0.5]])
    assert architecture_of(config).rows_to_gguf("model.layers.0.self_attn.q_proj", scale, config) is scale


def test_rows_that_are_no_heads_are_refused():
    config = {"model_type": "llama", "num_attention_heads": 4}
    with pytest.raises(ConversionError, match="q_proj has 12 rows, which are not 4 heads"):
        architecture_of(config).rows_to_gguf("model.layers.0.self_attn.q_proj", torch.zeros(12, 1), config)


@pytest.mark.parametrize(
    ("gguf_name", "hf_name", "offset"),
    [
        ("gemma", "model.norm.weight", 1.0),
        ("gemma3", "model.layers.0.self_attn.q_norm.weight", 1.0),
        ("gemma", "model.embed_tokens.weight", 0.0),
        ("llama", "model.norm.weight", 0.0),
    ],
)
def test_only_norms_of_gemma_hold_one_more(gguf_name, hf_name, offset):
    assert architecture_named(gguf_name).offset(hf_name) == offset


@pytest.mark.parametrize(
    "name", ["blk.0.attn_rot_embd.weight", "rope_freqs.weight", "blk.x.attn_q.weight", "blk.0.attn_q", "token_embd"]
)
def test_a_name_that_is_none_of_ours_gives_none_on_the_way_back(name):
    assert architecture_named("llama").to_hf(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.scale",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.rotary_emb.inv_freq",
        "lm_head.bias",
        "model.layers.0.input_layernorm.bias",
    ],
)
def test_a_tensor_that_llama_cpp_does_not_load_gives_none(name):
    assert architecture_named("llama").to_gguf(name) is None


def test_only_the_linears_of_gpt2_are_stored_transposed():
    gpt2 = architecture_named("gpt2")
    assert gpt2.is_transposed("transformer.h.0.attn.c_attn.weight")
    assert not gpt2.is_transposed("transformer.h.0.attn.c_attn.bias")
    assert not gpt2.is_transposed("transformer.wte.weight")
    assert not architecture_named("llama").is_transposed("model.layers.0.mlp.up_proj.weight")


def test_unknown_architectures_are_refused_with_the_known_ones():
    with pytest.raises(ConversionError, match=r"model_type=mamba.*llama, mistral, qwen2, qwen3, gemma"):
        architecture_of({"model_type": "mamba"})
    with pytest.raises(ConversionError, match=r"'rwkv'.*llama, qwen2"):
        architecture_named("rwkv")
