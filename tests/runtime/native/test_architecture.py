from __future__ import annotations

import math

import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bitnet_train.errors import FormatError
from bitnet_train.runtime.native.architecture import Layer, NotNative, read_architecture
from bitnet_train.runtime.native.families import FAMILIES

SIZES = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 300,
    "rms_norm_eps": 1e-6,
}
ROPES = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 1.7},
    {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 32, "mscale": 0.7, "mscale_all_dim": 1.0},
    {"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 32},
]


TYPES = ["sliding_attention", "full_attention"]
QWEN3 = {"model_type": "qwen3", "head_dim": 16}
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 16, "query_pre_attn_scalar": 256}
GEMMA2 = GEMMA | {"model_type": "gemma2"}
GEMMA3 = GEMMA | {
    "model_type": "gemma3_text",
    "layer_types": TYPES,
    "sliding_window": 5,
    "rope_parameters": {name: {"rope_type": "default"} for name in TYPES},
}


PHI3 = {"model_type": "phi3"}
GRANITE = {
    "model_type": "granite",
    "attention_multiplier": 0.125,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.25,
    "logits_scaling": 8.0,
}


def read(**changes):
    model_type = changes.get("model_type", "llama")
    model_class = next(name for name, family in FAMILIES.items() if family.model_type == model_type)
    return read_architecture({**SIZES, **changes}, model_class)


def scaling_of(**changes):
    (rope,) = read(**changes).ropes
    return rope.scaling


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_the_factor_on_cos_and_sin_is_that_of_transformers(rope):
    if rope["rope_type"] == "default":
        assert scaling_of(rope_parameters=rope) == 1
        return
    sizes = {name: value for name, value in SIZES.items() if name != "model_type"}
    config = LlamaConfig(**sizes, rope_parameters={"rope_theta": 10000.0, **rope})
    _, expected = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")
    assert math.isclose(scaling_of(rope_parameters=rope), expected, rel_tol=1e-12)


def test_what_an_older_transformers_wrote_is_read_too():
    old = {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 1e4}
    assert scaling_of(**old) == scaling_of() == 1
    assert read(**old).sizes.head_dim == 16
    with pytest.raises(NotNative, match="rotary embedding is of type 'strange'"):
        read(rope_scaling={"type": "strange", "factor": 2.0})


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, [4096, 4096]),
        ({"model_type": "mistral", "sliding_window": None}, [0, 0]),
        ({"model_type": "llama", "sliding_window": 7}, [0, 0]),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096}, [0, 0]),
        (QWEN3 | {"layer_types": ["full_attention"] * 2, "use_sliding_window": True}, [0, 0]),
        (QWEN3 | {"layer_types": TYPES, "use_sliding_window": True, "sliding_window": 9}, [9, 0]),
        (QWEN3 | {"layer_types": TYPES, "use_sliding_window": False, "sliding_window": 9}, [0, 0]),
        (GEMMA2 | {"layer_types": TYPES, "sliding_window": 5}, [5, 0]),
    ],
    ids=str,
)
def test_a_window_counts_where_the_architecture_has_one(changes, windows):
    assert [layer.window for layer in read(**changes).layers] == windows


def test_gemma_3_has_rotary_positions_of_its_own_in_layers_with_a_window():
    model = read(**GEMMA3)
    names = [(rope.tensor, rope.unused) for rope in model.ropes]
    assert names == [
        (f"model.rotary_emb.{kind}_inv_freq", f"model.rotary_emb.{kind}_original_inv_freq")
        for kind in ("full_attention", "sliding_attention")
    ]
    assert model.layers == (Layer(rope=1, window=5), Layer(rope=0, window=0))
    assert math.isclose(model.attention_scale, 256**-0.5)


def test_layers_may_have_no_rotary_positions():
    layers = read(model_type="smollm3", layer_types=["full_attention"] * 2, no_rope_layers=[1, 0]).layers
    assert layers == (Layer(rope=0), Layer(rope=-1))


def test_multipliers_are_read():
    model = read(**GRANITE)
    assert (model.embedding_scale, model.residual_scale, model.logit_divisor) == (12.0, 0.25, 8.0)
    assert model.attention_scale == 0.125


@pytest.mark.parametrize(
    ("rope", "half", "scaling"),
    [
        ({}, 8, 1.0),
        ({"partial_rotary_factor": 0.75}, 6, 1.0),
        ({"rope_type": "longrope", "original_max_position_embeddings": 128}, 8, 1.0),
        ({"rope_type": "longrope", "original_max_position_embeddings": 256, "attention_factor": 1.3}, 8, 1.3),
        (
            {"rope_type": "longrope", "original_max_position_embeddings": 128, "factor": 4.0},
            8,
            math.sqrt(1 + math.log(4) / math.log(128)),
        ),
    ],
    ids=str,
)
def test_a_part_of_a_head_and_the_factor_of_longrope_are_read(rope, half, scaling):
    (read_rope,) = read(**PHI3, rope_parameters=rope).ropes
    assert (read_rope.half, read_rope.scaling) == (half, scaling)


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 64),
        ({"rope_type": "longrope", "original_max_position_embeddings": 128}, 128),
        ({"rope_type": "dynamic", "factor": 4.0}, 128),
    ],
    ids=str,
)
def test_where_the_frequencies_change_the_context_ends(rope, positions):
    model = read(**PHI3, rope_parameters=rope)
    assert (model.sizes.max_positions, model.stated_positions) == (positions, 128)
    (read_rope,) = model.ropes
    assert (read_rope.tensor, read_rope.unused) == ("model.rotary_emb.original_inv_freq", "model.rotary_emb.inv_freq")


def test_caps_are_read_where_transformers_applies_them():
    model = read(
        **GEMMA2, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, layer_types=["full_attention"] * 2
    )
    assert (model.attention_soft_cap, model.logit_soft_cap) == (50.0, 30.0)
    plain = read(**GEMMA2, layer_types=["full_attention"] * 2)
    assert (plain.attention_soft_cap, plain.logit_soft_cap) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "gelu"}, "activation function is 'gelu', not one of silu, gelu_pytorch_tanh"),
        (GEMMA2 | {"hidden_activation": None}, "activation function is 'None'"),
        (GEMMA3 | {"use_bidirectional_attention": True}, "see what comes after them"),
        (GEMMA3 | {"attn_logit_softcapping": 50.0}, "`attn_logit_softcapping`, which transformers does not apply"),
        (GEMMA3 | {"layer_types": None}, "does not state `layer_types`"),
        (GEMMA3 | {"rope_parameters": {"full_attention": {}}}, "state `rope_parameters.sliding_attention`"),
        (GEMMA3 | {"query_pre_attn_scalar": None}, "does not state `query_pre_attn_scalar`"),
        (GEMMA2 | {"layer_types": ["full_attention", "chunked_attention"]}, "different ways.*chunked_attention"),
        (GEMMA2 | {"layer_types": TYPES, "sliding_window": None}, "does not state `sliding_window`"),
        (
            {"rope_parameters": {"rope_type": "strange"}},
            "type 'strange', not one of default, linear, llama3, yarn, longrope, dynamic",
        ),
        ({"rope_parameters": {"rope_type": "longrope"}}, "does not state `original_max_position_embeddings`"),
        (GRANITE | {"residual_multiplier": None}, "does not state `residual_multiplier`"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "does not state the `factor`"),
        ({"layer_types": TYPES}, "attend in different ways"),
        *((GEMMA3 | {"layer_types": [kind] * 2}, "attend in different ways") for kind in (None, 3, [], {})),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}, "only some of its layers"),
        ({"rms_norm_eps": None}, "does not state `rms_norm_eps`"),
        ({"model_type": "qwen3"}, "does not state `head_dim`"),
    ],
    ids=str,
)
def test_what_it_does_not_compute_is_said_in_words(changes, reason):
    with pytest.raises(NotNative, match=reason):
        read(**changes)


def test_another_class_is_named():
    with pytest.raises(NotNative, match="GPT2LMHeadModel is not one of LlamaForCausalLM, MistralForCausalLM"):
        read_architecture({"model_type": "gpt2"}, "GPT2LMHeadModel")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 1 << 60},
        {"hidden_size": -64},
        {"hidden_size": 64.0},
        {"hidden_size": True},
        {"hidden_size": "64"},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"head_dim": 15},
        {"num_attention_heads": 1 << 20, "num_key_value_heads": 1, "head_dim": 1 << 20},
        {"vocab_size": 1 << 31},
        {"num_hidden_layers": [2]},
        {"rms_norm_eps": -1.0},
        {"rms_norm_eps": 1e300},
        {"rms_norm_eps": "1e-6"},
        {"rope_parameters": [1]},
        {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": "128"}},
        PHI3 | {"rope_parameters": {"partial_rotary_factor": 0.01}},
        PHI3 | {"rope_parameters": {"partial_rotary_factor": 1.5}},
        {"model_type": "smollm3", "no_rope_layers": [1]},
        GRANITE | {"logits_scaling": 0.0},
        {"rope_parameters": {"rope_type": "yarn", "factor": -4.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 1e300}},
        {"model_type": "mistral", "sliding_window": 0},
        GEMMA2 | {"layer_types": ["full_attention"]},
        GEMMA2 | {"layer_types": "full_attention"},
        GEMMA2 | {"layer_types": TYPES, "sliding_window": -1},
        GEMMA2 | {"query_pre_attn_scalar": 0},
        GEMMA2 | {"query_pre_attn_scalar": float("nan")},
        GEMMA2 | {"attn_logit_softcapping": -1.0},
        GEMMA2 | {"final_logit_softcapping": "30"},
        GEMMA3 | {"rope_parameters": {"full_attention": [], "sliding_attention": []}},
    ],
    ids=str,
)
def test_numbers_that_describe_no_model_are_refused(changes):
    with pytest.raises(FormatError, match=r"config\.json: ") as caught:
        read(**changes)
    assert not isinstance(caught.value, NotNative)


def test_a_config_of_another_model_type_is_refused():
    with pytest.raises(FormatError, match="`model_type` 'mistral', the manifest LlamaForCausalLM"):
        read_architecture({**SIZES, "model_type": "mistral"}, "LlamaForCausalLM")
