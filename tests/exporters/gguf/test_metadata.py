"""What the file says of the model, and what llama.cpp cannot be told."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from transformers import Gemma2Config, GPT2Config, LlamaConfig, PhiConfig, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf import MODEL_NAME, read_back
from bitnet_train.exporters.gguf.limits import require_supported
from bitnet_train.exporters.gguf.rope import read_rope, rope_tensors
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.gguf.architecture import architecture_of
from tests.fixtures.family_folders import FAMILIES, SIZES, pack

LLAMA3 = {
    "rope_theta": 10000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_theta": 1e4, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def fields_of(tmp_path, config):
    export_as("gguf", pack(tmp_path / "packed", config), tmp_path / "out", ExportOptions())
    fields = gguf.GGUFReader(tmp_path / "out" / MODEL_NAME).fields
    return {name: field.contents() for name, field in fields.items()}


def test_a_llama_is_described(tmp_path):
    fields = fields_of(tmp_path, FAMILIES["llama"])
    stated = {key.removeprefix("llama."): value for key, value in fields.items() if key.startswith("llama.")}
    assert stated == {
        "vocab_size": 97,
        "context_length": 64,
        "embedding_length": 128,
        "block_count": 2,
        "feed_forward_length": 256,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "rope.dimension_count": 32,
        "rope.freq_base": 10000.0,
    }
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"] == "someone/random"
    assert fields["general.file_type"] == 40
    assert fields["general.quantization_version"] == 2


def test_gemma_3_is_told_its_windows_layer_by_layer_and_its_second_base(tmp_path):
    fields = fields_of(tmp_path, FAMILIES["gemma3"])
    assert fields["gemma3.attention.sliding_window"] == 16
    kinds = FAMILIES["gemma3"].layer_types
    assert fields["gemma3.attention.sliding_window_pattern"] == [kind == "sliding_attention" for kind in kinds]
    assert fields["gemma3.rope.freq_base"] == 1_000_000.0
    assert fields["gemma3.rope.freq_base_swa"] == 10_000.0


def test_gemma_2_is_told_its_caps(tmp_path):
    fields = fields_of(tmp_path, FAMILIES["gemma2"])
    assert fields["gemma2.attn_logit_softcapping"] == 50.0
    assert fields["gemma2.final_logit_softcapping"] == 30.0


def test_gpt_2_has_the_epsilon_of_layer_norms_and_no_rotation(tmp_path):
    fields = fields_of(tmp_path, FAMILIES["gpt2"])
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert fields["gpt2.feed_forward_length"] == 256
    assert not any(".rope." in key for key in fields)


def test_phi_rotates_a_part_of_each_head(tmp_path):
    assert fields_of(tmp_path, FAMILIES["phi"])["phi2.rope.dimension_count"] == 16


def test_a_window_that_llama_cpp_ignores_is_the_context_length(tmp_path):
    packed = pack(tmp_path / "packed", FAMILIES["mistral"])
    record = export_as("gguf", packed, tmp_path / "out")
    assert gguf.GGUFReader(tmp_path / "out" / MODEL_NAME).fields["llama.context_length"].contents() == 32
    assert any("32 tokens of the sliding window" in note for note in record.facts["notes"])


@pytest.mark.parametrize(
    ("rope", "stated"),
    [
        ({"rope_theta": 5e5, "rope_type": "default"}, {"freq_base": 5e5}),
        ({"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}, {"freq_base": 1e4}),
        (
            {"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0},
            {"freq_base": 1e4, "scaling.type": "linear", "scaling.factor": 4.0},
        ),
        (
            {**YARN, "beta_fast": 32.0, "beta_slow": 1.0},
            {
                "freq_base": 1e4,
                "scaling.type": "yarn",
                "scaling.factor": 4.0,
                "scaling.original_context_length": 16,
                "scaling.yarn_beta_fast": 32.0,
                "scaling.yarn_beta_slow": 1.0,
            },
        ),
    ],
    ids=["default", "dynamic", "linear", "yarn"],
)
def test_rotary_positions_are_stated(tmp_path, rope, stated):
    fields = fields_of(tmp_path, LlamaConfig(**SIZES, rope_parameters=rope))
    found = {key.removeprefix("llama.rope."): value for key, value in fields.items() if key.startswith("llama.rope.")}
    assert found == {**stated, "dimension_count": 32}


def test_the_factors_of_llama_3_divide_to_the_frequencies_of_transformers():
    config = LlamaConfig(**SIZES, rope_parameters=LLAMA3)
    (tensor,) = rope_tensors(read_rope(config.to_dict()), 32)
    plain = 10000.0 ** -(np.arange(0, 32, 2) / 32)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    assert np.allclose(plain / tensor.make(), scaled.numpy(), rtol=1e-6)
    assert tensor.name == "rope_freqs.weight"
    assert (tensor.shape, tensor.num_bytes) == ((16,), 64)


def test_the_factors_of_llama_3_are_a_tensor_of_the_file(tmp_path):
    packed = pack(tmp_path / "packed", LlamaConfig(**SIZES, rope_parameters=LLAMA3))
    export_as("gguf", packed, tmp_path / "out")
    names = [tensor.name for tensor in gguf.GGUFReader(tmp_path / "out" / MODEL_NAME).tensors]
    assert "rope_freqs.weight" in names
    assert all("rope" not in name for name, _ in read_back(tmp_path / "out"))


def test_an_older_config_is_read_too():
    rope = read_rope({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert (rope.theta, rope.type, rope.parameters["factor"]) == (5e5, "linear", 2.0)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "longrope", "rope_theta": 1e4}, r"rope_type=longrope.*default, dynamic, linear, yarn, llama3"),
        ({**YARN, "attention_factor": 1.0}, "attention_factor` differs"),
        ({**YARN, "mscale": 0.7}, "mscale` differs"),
        (
            {"sliding_attention": {"rope_type": "linear"}, "full_attention": {"rope_type": "default"}},
            "sliding_attention` is scaled",
        ),
    ],
)
def test_rotary_positions_that_cannot_be_stated_are_refused(rope, message):
    with pytest.raises(FormatError, match=message):
        read_rope({"rope_parameters": rope})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LlamaConfig(**SIZES, hidden_act="gelu"), ("hidden_act=gelu", "with silu")),
        (Qwen2Config(**SIZES, head_dim=64), ("head_dim=64", "= 32")),
        (GPT2Config(scale_attn_by_inverse_layer_idx=True), ("scale_attn_by_inverse_layer_idx=True", "with False")),
        (PhiConfig(**SIZES, qk_layernorm=True), ("qk_layernorm=True",)),
        (Gemma2Config(**SIZES, head_dim=32), ("query_pre_attn_scalar=256", "with 32")),
        (
            Gemma2Config(**SIZES, head_dim=32, query_pre_attn_scalar=32, attn_logit_softcapping=None),
            ("attn_logit_softcapping=None",),
        ),
        (
            LlamaConfig(**SIZES, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
            ("partial_rotary_factor=0.5", "with 1"),
        ),
    ],
)
def test_a_setting_that_llama_cpp_cannot_be_told_is_refused_by_name(config, words):
    plain = config.to_dict()
    with pytest.raises(FormatError) as caught:
        require_supported(architecture_of(plain), plain)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_usual_settings_of_every_family_are_supported(family):
    plain = FAMILIES[family].to_dict()
    require_supported(architecture_of(plain), plain)
