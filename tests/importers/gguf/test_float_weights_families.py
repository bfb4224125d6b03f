"""A float GGUF computes what the model that it was written from does: all of its tensors, all of its configuration.

The expected model is built from the config, the file's keys are written out by hand as llama.cpp's converter does.
Values are ones that bfloat16 holds, so that logits are compared with ==.
"""

import pytest
import torch
from transformers import Gemma2Config, Gemma3TextConfig, GPT2Config, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.load import load_pretrained
from tests.fixtures.gguf_files import VOCABULARY, float_tensor
from tests.fixtures.gguf_models import SMALL, load, logits, make_float

THETA = {"rope_theta": 1e4}
PLAIN = {"rope_type": "default", **THETA}
LONG = {**SMALL, "max_position_embeddings": 4096}


def same(loaded, made):
    expected = made.model.state_dict()
    found = loaded.model.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert torch.equal(logits(loaded.model), logits(made.model))


FAMILIES = {
    "llama": (LlamaConfig(**SMALL, tie_word_embeddings=False, rope_theta=5e5), {}),
    "llama tied": (LlamaConfig(**SMALL, tie_word_embeddings=True), {}),
    "llama head 32": (LlamaConfig(**SMALL, head_dim=32), {}),
    "llama attention biases": (LlamaConfig(**SMALL, attention_bias=True), {}),
    "llama mlp biases": (LlamaConfig(**SMALL, mlp_bias=True), {}),
    "qwen2": (Qwen2Config(**SMALL, tie_word_embeddings=False), {}),
    "qwen3 head norms": (Qwen3Config(**SMALL, head_dim=32, rope_theta=1e6), {}),
    "qwen3 biases": (Qwen3Config(**SMALL, head_dim=32, attention_bias=True), {}),
    "gemma2": (
        Gemma2Config(
            **SMALL,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=4,
            attn_logit_softcapping=2.5,
            final_logit_softcapping=0.5,
        ),
        {
            "gemma2.attention.sliding_window": 4,
            "gemma2.attn_logit_softcapping": 2.5,
            "gemma2.final_logit_softcapping": 0.5,
        },
    ),
    "gemma3": (
        Gemma3TextConfig(
            **SMALL,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
            },
        ),
        {
            "gemma3.attention.sliding_window": 4,
            "gemma3.attention.sliding_window_pattern": [0, 1],
            "gemma3.rope.freq_base_swa": 5e4,
            "gemma3.rope.scaling.type": "linear",
            "gemma3.rope.scaling.factor": 8.0,
        },
    ),
    "phi3": (Phi3Config(**SMALL), {}),
    "phi3 window": (Phi3Config(**SMALL, sliding_window=4), {"phi3.attention.sliding_window": 4}),
    "phi3 rotates a half": (
        Phi3Config(**SMALL, rope_parameters={**PLAIN, "partial_rotary_factor": 0.5}),
        {"phi3.rope.dimension_count": 8},
    ),
    "gpt2": (GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=128), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_float_gguf_has_the_tensors_and_the_logits_of_its_model(name, tmp_path):
    config, metadata = FAMILIES[name]
    made = make_float(config, name.partition(" ")[0], metadata=metadata)
    same(load(made, tmp_path), made)


@pytest.mark.parametrize(("pattern", "kinds"), [(2, "sf"), (1, "ff"), ([1, 1], "ss")])
def test_the_pattern_of_sliding_layers_is_followed(pattern, kinds, tmp_path):
    config, metadata = FAMILIES["gemma3"]
    made = make_float(config, "gemma3", metadata={**metadata, "gemma3.attention.sliding_window_pattern": pattern})
    words = {"s": "sliding_attention", "f": "full_attention"}
    assert load(made, tmp_path).model.config.layer_types == [words[kind] for kind in kinds]


ROPE = {
    "linear": (
        {"rope_type": "linear", "factor": 4.0},
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    ),
    "a factor alone is linear": ({"rope_type": "linear", "factor": 4.0}, {"llama.rope.scaling.factor": 4.0}),
    "linear of older files": ({"rope_type": "linear", "factor": 4.0}, {"llama.rope.scale_linear": 4.0}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 32,
            "llama.rope.scaling.finetuned": True,
        },
    ),
    "yarn with all its keys": (
        {
            "rope_type": "yarn",
            "factor": 1.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.25,
        },
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 1.0,
            "llama.rope.scaling.original_context_length": 32,
            "llama.rope.scaling.yarn_beta_fast": 16.0,
            "llama.rope.scaling.yarn_beta_slow": 2.0,
            "llama.rope.scaling.yarn_attn_factor": 1.25,
        },
    ),
    "none": ({}, {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}),
}


@pytest.mark.parametrize("name", ROPE)
def test_scaled_rotary_positions_are_those_of_the_file(name, tmp_path):
    rope, metadata = ROPE[name]
    made = make_float(LlamaConfig(**LONG, rope_parameters={**PLAIN, **rope}), metadata=metadata)
    loaded = load(made, tmp_path)
    assert {**PLAIN, **rope}.items() <= loaded.model.config.rope_parameters.items()
    same(loaded, made)


@pytest.mark.parametrize(("factor", "context"), [(8.0, 8192), (32.0, 8192), (5.0, 32), (2.5, 4096)])
def test_the_tensor_of_llama_3_gives_back_its_scaling(factor, context, tmp_path):
    rope = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": context,
    }
    scaled = LlamaConfig(**{**SMALL, "max_position_embeddings": 131072}, rope_parameters={**THETA, **rope})
    made = make_float(scaled)
    plain = make_float(LlamaConfig(**SMALL, rope_parameters=PLAIN)).model
    factors = plain.model.rotary_emb.inv_freq / made.model.model.rotary_emb.inv_freq
    made.tensors["rope_freqs.weight"] = float_tensor(factors)
    loaded = load(made, tmp_path)
    assert rope.items() <= loaded.model.config.rope_parameters.items()
    same(loaded, made)


def test_factors_of_1_scale_nothing(tmp_path):
    made = make_float(LlamaConfig(**SMALL))
    made.tensors["rope_freqs.weight"] = float_tensor(torch.ones(8))
    same(load(made, tmp_path), made)


@pytest.mark.parametrize("context", [8, 32], ids=["long factors", "short factors"])
def test_both_sets_of_longrope_are_read(context, tmp_path):
    generator = torch.Generator().manual_seed(1)
    short, long = (1 + 3 * torch.rand(8, generator=generator) for _ in range(2))
    rope = {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "attention_factor": 1.25,
        "original_max_position_embeddings": context,
        **THETA,
    }
    config = Phi3Config(**SMALL, rope_parameters=rope, original_max_position_embeddings=context)
    stated = {"phi3.rope.scaling.attn_factor": 1.25, "phi3.rope.scaling.original_context_length": context}
    made = make_float(config, "phi3", metadata=stated)
    made.tensors |= {"rope_factors_short.weight": float_tensor(short), "rope_factors_long.weight": float_tensor(long)}
    same(load(made, tmp_path), made)


@pytest.mark.parametrize("given", [("attn_q",), ("attn_v",), ("attn_q", "attn_k", "attn_v"), ("attn_output",)])
def test_biases_that_the_file_leaves_out_are_zero(given, tmp_path):
    made = make_float(LlamaConfig(**SMALL, attention_bias=True))
    for name in [name for name in made.tensors if name.endswith(".bias") and name.split(".")[-2] not in given]:
        del made.tensors[name]
        leaf = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}
        layer = made.model.model.layers[int(name.split(".")[1])].self_attn
        layer.get_submodule(leaf[name.split(".")[-2]]).bias.data.zero_()
    same(load(made, tmp_path), made)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0"])
def test_other_types_are_dequantised_and_rounded_to_bfloat16(kind, tmp_path):
    made = make_float(LlamaConfig(**SMALL), kind=kind)
    loaded = load(made, tmp_path)
    assert all(torch.equal(value, value.bfloat16().float()) for value in loaded.model.parameters())
    # one rounding to bfloat16 (2^-9), after one of Q8_0, half a step of max|w| / 127, or of F16's smallest numbers
    for name, value in loaded.model.named_parameters():
        expected = made.model.get_parameter(name)
        step = expected.abs().max() / 127 if kind == "Q8_0" and expected.ndim > 1 else 0
        assert torch.all((value - expected).abs() <= 0.51 * step + 2**-8 * expected.abs() + 2**-25), name


def test_the_dtype_of_a_float_gguf_is_the_one_asked_for(tmp_path):
    path = make_float(LlamaConfig(**SMALL)).write(tmp_path)
    model = load_pretrained(str(path), dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def head_norms(made):
    made.tensors |= {f"blk.{index}.attn_q_norm.weight": float_tensor(torch.ones(16)) for index in range(2)}


def sub_norm(made):
    made.tensors["blk.0.attn_sub_norm.weight"] = float_tensor(torch.ones(64))


def scale_of_a_weight(made):
    made.tensors["blk.0.attn_q.scale"] = float_tensor(torch.ones(1))


def output_bias(made):
    made.tensors["output.bias"] = float_tensor(torch.ones(VOCABULARY))


def norm_bias(made):
    made.tensors["blk.0.attn_norm.bias"] = float_tensor(torch.ones(64))


def experts(made):
    made.tensors["blk.0.ffn_gate_exps.weight"] = float_tensor(torch.ones(2, 128, 64))


def no_norm(made):
    del made.tensors["blk.1.ffn_norm.weight"]


def no_projection(made):
    del made.tensors["blk.1.attn_k.weight"]


def no_embedding(made):
    del made.tensors["token_embd.weight"]


def short_norm(made):
    made.tensors["output_norm.weight"] = float_tensor(torch.ones(63))


def dynamic_positions(made):
    made.metadata["llama.rope.scaling.type"] = "dynamic"


def yarn_without_context(made):
    made.metadata |= {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}


def other_yarn(made):
    made.metadata |= {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 32,
        "llama.rope.scaling.yarn_ext_factor": 0.5,
    }


def two_scalings(made):
    made.metadata |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    made.tensors["rope_freqs.weight"] = float_tensor(torch.full((8,), 2.0))


def half_of_longrope(made):
    made.tensors["rope_factors_long.weight"] = float_tensor(torch.ones(8))


def half_rotated(made):
    made.metadata["llama.rope.dimension_count"] = 8
    made.metadata["llama.attention.key_length"] = 16


def clamped(made):
    made.metadata["llama.attention.clamp_kqv"] = 8.0


REFUSED = {
    head_norms: r"blk\.0\.attn_q_norm\.weight has no place in a model of architecture llama",
    sub_norm: r"blk\.0\.attn_sub_norm\.weight has no place",
    scale_of_a_weight: r"blk\.0\.attn_q\.scale has no place",
    output_bias: r"has no place for lm_head\.bias",
    norm_bias: r"has no place for model\.layers\.0\.input_layernorm\.bias",
    experts: r"blk\.0\.ffn_gate_exps\.weight has no place",
    no_norm: r"needs model\.layers\.1\.post_attention_layernorm\.weight, which the file does not hold",
    no_projection: r"needs model\.layers\.1\.self_attn\.k_proj\.weight, which the file does not hold",
    no_embedding: r"has no token_embd\.weight",
    short_norm: r"model\.norm\.weight is 63; the config of its model says 64",
    dynamic_positions: r"in a way that is not read here: \{'type': 'dynamic'",
    yarn_without_context: "in a way that is not read here: .*yarn",
    other_yarn: "yarn_ext_factor",
    two_scalings: r"in a way that is not read here: .*rope_freqs\.weight",
    half_of_longrope: r"has no rope_factors_short\.weight",
    half_rotated: r"rotates 8 of the 16 values of a head \(`llama\.rope\.dimension_count`\)",
    clamped: r"`llama\.attention\.clamp_kqv`=8\.0, which is not computed here",
}


@pytest.mark.slow
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_has_no_place_in_the_model_or_is_missing_is_refused_by_name(change, tmp_path):
    made = make_float(LlamaConfig(**SMALL, tie_word_embeddings=False))
    change(made)
    with pytest.raises((FormatError, ConversionError), match=REFUSED[change]):
        load(made, tmp_path)
