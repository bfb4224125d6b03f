"""GGUF files with 1-bit weights come in as they are; written from the published layouts by the tests themselves."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
)

from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from tests.fixtures.gguf_files import BLOCKS, VOCABULARY, float_tensor, one_bit_tensor
from tests.fixtures.gguf_models import (
    ARCHITECTURES,
    ONE_BIT,
    SMALL,
    assert_exact,
    dense,
    gguf,
    grid,
    load,
    logits,
    make,
    with_scale,
    without_activation_rounding,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_BIT)
def test_codes_scales_and_logits_are_those_of_the_file(kind, tmp_path):
    made = make(kinds=(kind,))
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert not loaded.model.training
    name = "binary" if kind == "Q1_0" else "ternary"
    assert loaded.record.weight == WeightScheme(name, "group", BLOCKS[kind], learnable_scale=True)
    assert loaded.record.activation == ActivationScheme("int8")
    assert loaded.record.selection.roles == ("attention", "mlp")
    assert f"14 layers {name} per group {BLOCKS[kind]}" in loaded.description
    assert torch.allclose(logits(without_activation_rounding(loaded.model)), logits(made.model), atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_what_its_dense_model_does(name, tmp_path):
    made = make(ARCHITECTURES[name], architecture=name.partition(" ")[0])
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert torch.allclose(logits(without_activation_rounding(loaded.model)), logits(made.model), atol=1e-5)


@pytest.mark.slow
def test_the_tokenizer_and_its_special_tokens_come_along(tmp_path):
    loaded = load(make(), tmp_path)
    assert loaded.tokenizer.decode(loaded.tokenizer("the cat").input_ids) == "the cat"
    assert loaded.tokenizer("the").input_ids == [257]
    assert max(loaded.tokenizer.get_vocab().values()) == VOCABULARY - 1
    assert (loaded.model.config.eos_token_id, loaded.model.config.pad_token_id) == (258, 259)
    assert loaded.model.generation_config.eos_token_id == 258


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_a_float_embedding_keeps_its_values(kind, tmp_path):
    made = make(float_kind=kind)
    loaded = load(made, tmp_path)
    raw = made.tensors["token_embd.weight"]
    expected = gguf.quants.dequantize(
        torch.frombuffer(bytearray(raw.data), dtype=torch.uint8).numpy().reshape(VOCABULARY, -1),
        gguf.GGMLQuantizationType(raw.type_id),
    )
    table = loaded.model.get_input_embeddings().weight
    assert torch.equal(table, torch.tensor(expected))
    assert loaded.model.get_output_embeddings().weight is table


@pytest.mark.slow
def test_one_dtype_for_what_stays_float_and_float32_for_the_latents(tmp_path):
    loaded = load_pretrained(str(make().write(tmp_path)), dtype=torch.bfloat16)
    assert loaded.model.model.norm.weight.dtype == torch.bfloat16
    assert all(layer.weight.dtype == torch.float32 for layer in bit_layers(loaded.model).values())


@pytest.mark.slow
def test_a_1_bit_embedding_that_is_also_the_head_becomes_two_layers_with_its_codes(tmp_path):
    made = make(kinds=("Q1_0",))
    codes, scale = grid((VOCABULARY, 256), "Q1_0", seed=99)
    made.tensors["token_embd.weight"] = one_bit_tensor(codes, scale, "Q1_0")
    made.expected |= dict.fromkeys(("model.embed_tokens", "lm_head"), (codes, scale))
    with torch.no_grad():
        made.model.get_input_embeddings().weight.copy_(dense(codes, scale))
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert isinstance(loaded.model.get_input_embeddings(), BitEmbedding)
    assert isinstance(loaded.model.get_output_embeddings(), BitLinear)
    assert loaded.record.selection.roles == ("attention", "mlp", "head", "embedding")
    assert not loaded.model.config.tie_word_embeddings
    assert torch.allclose(logits(without_activation_rounding(loaded.model)), logits(made.model), atol=1e-5)


@pytest.mark.slow
def test_tensors_of_different_block_types_have_schemes_of_their_own(tmp_path):
    made = make(kinds=("Q1_0", "TQ2_0", "Q2_0"))
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    found = {scheme.describe() for scheme in loaded.record.schemes.values()}
    assert found == {"binary per group 128", "ternary per group 256", "ternary per group 64"}


@pytest.mark.slow
def test_ternary_types_without_a_zero_are_binary(tmp_path):
    assert load(make(kinds=("Q2_0", "TQ2_0"), binary=True), tmp_path).record.weight.name == "binary"


@pytest.mark.slow
@pytest.mark.parametrize(("per", "granularity"), [("tensor", "tensor"), ("row", "row"), ("block", "group")])
def test_scales_that_do_not_change_within_a_weight_or_a_row_are_one_scale(per, granularity, tmp_path):
    made = make(per=per)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.granularity == granularity


@pytest.mark.slow
def test_a_linear_of_another_type_stays_float_and_is_not_selected(tmp_path):
    made = make()
    name = "model.layers.1.mlp.up_proj"
    del made.expected[name]
    made.tensors["blk.1.ffn_up.weight"] = float_tensor(made.model.get_submodule(name).weight.detach(), "F16")
    loaded = load(made, tmp_path)
    assert type(loaded.model.get_submodule(name)) is torch.nn.Linear
    assert loaded.record.selection.exclude == (name,)
    assert len(loaded.record.layers) == 13


@pytest.mark.slow
def test_a_subnormal_scale_is_kept_exactly(tmp_path):
    made = with_scale(make(), 3 * 2.0**-24)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.scale_dtype == "float32"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metadata", "rope"),
    [
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 32,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        ),
    ],
    ids=["linear", "yarn"],
)
def test_scaled_rotary_positions_are_followed(metadata, rope, tmp_path):
    made = make()
    made.metadata |= metadata
    loaded = load(made, tmp_path)
    assert rope.items() <= loaded.model.config.rope_parameters.items()


def test_the_rotary_factors_of_llama_3_are_recognised(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    scaled = LlamaConfig(**{**SMALL, "max_position_embeddings": 131072}, rope_parameters=rope)
    plain = LlamaConfig(**SMALL, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    made = make(scaled)
    frequencies = [AutoModelForCausalLM.from_config(config).model.rotary_emb.inv_freq for config in (plain, scaled)]
    made.tensors["rope_freqs.weight"] = float_tensor(frequencies[0] / frequencies[1])
    loaded = load(made, tmp_path)
    assert torch.allclose(loaded.model.model.rotary_emb.inv_freq, frequencies[1], rtol=1e-6)
    assert torch.allclose(logits(without_activation_rounding(loaded.model)), logits(made.model), atol=1e-5)
