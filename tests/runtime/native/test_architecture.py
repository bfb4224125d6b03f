from __future__ import annotations

import math

import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bitnet_train.errors import FormatError
from bitnet_train.runtime.native.architecture import KINDS, NotNative, read_architecture

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


def read(**changes):
    model_class = next(name for name, kind in KINDS.items() if kind == changes.get("model_type", "llama"))
    return read_architecture({**SIZES, **changes}, model_class)


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_the_factor_on_cos_and_sin_is_that_of_transformers(rope):
    if rope["rope_type"] == "default":
        assert read(rope_parameters=rope).rope_scaling == 1
        return
    sizes = {name: value for name, value in SIZES.items() if name != "model_type"}
    config = LlamaConfig(**sizes, rope_parameters={"rope_theta": 10000.0, **rope})
    _, expected = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")
    assert math.isclose(read(rope_parameters=rope).rope_scaling, expected, rel_tol=1e-12)


def test_what_an_older_transformers_wrote_is_read_too():
    old = read(rope_scaling={"type": "linear", "factor": 2.0}, rope_theta=1e4)
    assert old.rope_scaling == read().rope_scaling == 1
    assert old.head_dim == 16
    with pytest.raises(NotNative, match="rotary embedding is of type 'dynamic'"):
        read(rope_scaling={"type": "dynamic", "factor": 2.0})


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "llama", "sliding_window": 7}, 0),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 4096}, 0),
        ({"model_type": "qwen3", "head_dim": 16, "layer_types": ["full_attention"] * 2, "use_sliding_window": True}, 0),
    ],
    ids=str,
)
def test_a_window_counts_where_the_architecture_has_one(changes, window):
    assert read(**changes).sliding_window == window


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "gelu"}, "activation function is 'gelu', not 'silu'"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "type 'dynamic', not one of default, linear, llama3, yarn"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "type 'longrope'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "does not state the `factor`"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "attend in different ways"),
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
        {"rope_parameters": {"rope_type": "yarn", "factor": -4.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 1e300}},
        {"model_type": "mistral", "sliding_window": 0},
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
