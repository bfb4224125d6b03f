"""GGUF files that contradict themselves, or that 1-bit layers cannot hold, are refused by name."""

import pytest
import torch

from bitnet_train.errors import FormatError
from tests.fixtures.gguf_files import float_tensor, one_bit_tensor
from tests.fixtures.gguf_models import grid, load, make, with_scale


@pytest.mark.slow
@pytest.mark.parametrize("value", [-0.0, -0.01])
def test_a_scale_that_has_no_1_bit_layer_is_refused_by_row_and_block(value, tmp_path):
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight: the scale of row 3, block 1 is -0"):
        load(with_scale(make(), value), tmp_path)


@pytest.mark.slow
def test_a_scale_of_nan_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight: .*infinite or NaN"):
        load(with_scale(make(), float("nan")), tmp_path)


@pytest.mark.slow
def test_the_code_plus_two_is_refused_by_name(tmp_path):
    made = make()
    tensor = made.tensors["blk.1.attn_v.weight"]
    tensor.data = tensor.data[:2] + bytes([tensor.data[2] | 0b1100]) + tensor.data[3:]
    with pytest.raises(FormatError, match=r"blk\.1\.attn_v\.weight has the code \+2 in row 0, input 1"):
        load(made, tmp_path)


def missing_norm(made):
    del made.tensors["output_norm.weight"]


def strange_tensor(made):
    made.tensors["blk.0.attn_sinks.weight"] = float_tensor(torch.ones(4))


def block_too_many(made):
    made.tensors["blk.2.attn_norm.weight"] = float_tensor(torch.ones(256))


def linear_too_many(made):
    made.tensors["blk.2.ffn_up.weight"] = made.tensors["blk.1.ffn_up.weight"]


def short_norm(made):
    made.tensors["output_norm.weight"] = float_tensor(torch.ones(255))


def short_linear(made):
    made.tensors["blk.0.ffn_up.weight"] = one_bit_tensor(*grid((64, 64), "Q2_0"), "Q2_0")


def odd_query(made):
    made.tensors["blk.0.attn_q.weight"] = one_bit_tensor(*grid((3, 256), "Q2_0"), "Q2_0")


def many_layers(made):
    made.metadata["llama.block_count"] = 2**31


def wide_model(made):
    made.metadata["llama.embedding_length"] = 2**40


def no_architecture(made):
    del made.metadata["general.architecture"]


def unknown_architecture(made):
    made.metadata["general.architecture"] = "mamba"


def no_heads(made):
    made.metadata["llama.attention.head_count"] = 0


def no_tokens(made):
    del made.metadata["tokenizer.ggml.tokens"]


def long_rope(made):
    made.metadata["llama.rope.scaling.type"] = "longrope"


def strange_factors(made):
    made.tensors["rope_freqs.weight"] = float_tensor(torch.rand(32))


DAMAGE = {
    missing_norm: "needs model.norm.weight, which the file does not hold",
    strange_tensor: "blk.0.attn_sinks.weight has no place",
    block_too_many: "has no place for model.layers.2.input_layernorm.weight",
    linear_too_many: "blk.2.ffn_up.weight belongs to model.layers.2.mlp.up_proj, which LlamaForCausalLM does not have",
    short_norm: "model.norm.weight is 255; the config of its model says 256",
    short_linear: "blk.0.ffn_up.weight is 64 x 64; the config of its model says 512 x 256",
    odd_query: "3 rows, which are not 4 heads",
    many_layers: "`llama.block_count` is 2147483648, but its 20 tensors allow 0 to 20",
    wide_model: "`llama.embedding_length` is 1099511627776",
    no_architecture: "does not say its `general.architecture`",
    unknown_architecture: "architecture 'mamba'",
    no_heads: "transformers cannot make|no model can be built",
    no_tokens: "transformers cannot make a config and a tokenizer",
    long_rope: "as longrope, and has no rope_factors_short.weight",
    strange_factors: "none of Llama 3's",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_file_that_contradicts_itself_is_refused(damage, tmp_path):
    made = make()
    damage(made)
    with pytest.raises(FormatError, match=DAMAGE[damage]):
        load(made, tmp_path)
