"""GGUF files with 1-bit weights, written from the published layouts by the tests themselves."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from bitnet_train.errors import FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.packed import export_packed
from bitnet_train.exporters.packed_source import open_packed
from bitnet_train.exporters.table import export_as
from bitnet_train.formats.ggml import encode
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import BitLinear, bit_layers, set_training
from bitnet_train.model.bit_lora import AdapterConfig, attach
from bitnet_train.model.converted import load_converted, save_converted
from bitnet_train.model.gguf_architecture import architecture_named
from bitnet_train.model.gguf_file import open_gguf
from bitnet_train.model.load import load_pretrained
from bitnet_train.model.merge import merge
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped, Identity, Tanh
from bitnet_train.runtime.validate import validate
from bitnet_train.runtime.validation_report import LEVEL_NAMES

from . import gguf_files
from .gguf_files import BLOCKS, VOCABULARY, Tensor, float_tensor, llama_metadata, one_bit_tensor, rotated_rows

gguf = pytest.importorskip("gguf", exc_type=ImportError)

FILES_OF_LLAMA_QUANTIZE = [Path(name) for name in os.environ.get("BITNET_TEST_ONE_BIT_GGUF", "").split(":") if name]
ONE_BIT = ("Q1_0", "Q2_0", "TQ1_0", "TQ2_0")
SIZES = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 258,
    "eos_token_id": 258,
    "pad_token_id": 259,
}
LLAMA = LlamaConfig(**SIZES, hidden_size=256, intermediate_size=512, tie_word_embeddings=True, rms_norm_eps=1e-5)


def grid(shape, kind, binary=None, per="block", seed=0):
    """Random codes [N, K] and one float16 scale a block, each row, or all."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-1, 2, shape, generator=generator).to(torch.int8)
    if binary if binary is not None else kind == "Q1_0":
        codes = torch.where(codes < 0, -1, 1).to(torch.int8)
    blocks = (shape[0], shape[1] // BLOCKS[kind])
    scale = 0.01 + 0.02 * torch.rand(
        {"block": blocks, "row": (blocks[0], 1), "tensor": (1, 1)}[per], generator=generator
    )
    return codes, scale.half().float().expand(blocks).contiguous()


def dense(codes, scale):
    return codes.float() * scale.repeat_interleave(codes.shape[1] // scale.shape[1], dim=1)


@dataclass
class Made:
    """A GGUF in the making, beside the dense model it stands for."""

    model: PreTrainedModel
    metadata: dict
    tensors: dict[str, Tensor] = field(default_factory=dict)
    expected: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def write(self, folder, name="made.gguf"):
        path = folder / name
        path.write_bytes(gguf_files.gguf_bytes(self.metadata, self.tensors))
        return path


@torch.no_grad()
def make(config=LLAMA, kinds=("Q2_0",), architecture="llama", float_kind="F32", layers="layers", **how):
    """Every linear of the blocks in one of `kinds`, in turn; the rest as floats. Names are the gguf package's."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    number = next(value for value, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    made = Made(model, llama_metadata(config, architecture) if architecture != "gpt2" else gpt2_metadata(config))
    for index, (name, parameter) in enumerate(model.named_parameters()):
        module, _, leaf = name.rpartition(".")
        gguf_name = f"{names.get_name(module)}.{leaf}"
        heads = {"attn_q": config.num_attention_heads, "attn_k": getattr(config, "num_key_value_heads", 0)}
        heads = heads.get(gguf_name.split(".")[-2], 0) if architecture == "llama" else 0
        if parameter.ndim == 2 and gguf_name.startswith("blk."):
            transposed = architecture == "gpt2"
            shape = tuple(reversed(parameter.shape)) if transposed else tuple(parameter.shape)
            kind = kinds[index % len(kinds)]
            codes, scale = grid(shape, kind, seed=index, **how)
            parameter.copy_(dense(codes, scale).t() if transposed else dense(codes, scale))
            made.expected[module] = (codes, scale)
            rows = [rotated_rows(part, heads) if heads else part for part in (codes, scale)]
            made.tensors[gguf_name] = one_bit_tensor(*rows, kind)
            continue
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        stored = parameter + 1 if architecture.startswith("gemma") and "norm" in name else parameter
        stored = rotated_rows(stored, heads) if heads else stored
        made.tensors[gguf_name] = float_tensor(stored.detach(), "F32" if parameter.ndim == 1 else float_kind)
    return made


def gpt2_metadata(config):
    sizes = {
        "block_count": config.n_layer,
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }
    named = {f"gpt2.{key}": value for key, value in sizes.items()}
    return {"general.architecture": "gpt2", **named, **gguf_files.tokenizer_metadata()}


@torch.no_grad()
def logits(model):
    ids = torch.randint(3, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    return model.eval()(input_ids=ids).logits


def without_activation_rounding(model):
    set_training(model, ActivationScheme("none"), Identity())
    return model


def load(made, tmp_path):
    return load_pretrained(str(made.write(tmp_path)))


def assert_exact(loaded, made):
    layers = bit_layers(loaded.model)
    assert set(made.expected) <= set(layers) == set(loaded.record.layers)
    for name, (codes, scale) in made.expected.items():
        found, spread = layers[name].quantized()
        assert torch.equal(found, codes), name
        assert torch.equal(dense(found, spread), dense(codes, scale)), name


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


SMALL = {**SIZES, "hidden_size": 64, "intermediate_size": 128}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, attention_bias=True, tie_word_embeddings=False, rope_theta=5e5),
    "llama head 32": LlamaConfig(**SMALL, head_dim=32, mlp_bias=True),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=32, rope_theta=1e6),
    "gemma2": Gemma2Config(**SMALL, head_dim=16, query_pre_attn_scalar=16, sliding_window=16),
    "gemma3": Gemma3TextConfig(**SMALL, head_dim=16, query_pre_attn_scalar=16, sliding_window=16),
    "phi3": Phi3Config(**SMALL),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=128),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_what_its_dense_model_does(name, tmp_path):
    made = make(ARCHITECTURES[name], architecture=name.partition(" ")[0])
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert torch.allclose(logits(without_activation_rounding(loaded.model)), logits(made.model), atol=1e-5)


def test_the_tokenizer_and_its_special_tokens_come_along(tmp_path):
    loaded = load(make(), tmp_path)
    assert loaded.tokenizer.decode(loaded.tokenizer("the cat").input_ids) == "the cat"
    assert loaded.tokenizer("the").input_ids == [257]
    assert max(loaded.tokenizer.get_vocab().values()) == VOCABULARY - 1
    assert (loaded.model.config.eos_token_id, loaded.model.config.pad_token_id) == (258, 259)
    assert loaded.model.generation_config.eos_token_id == 258


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


def test_one_dtype_for_what_stays_float_and_float32_for_the_latents(tmp_path):
    loaded = load_pretrained(str(make().write(tmp_path)), dtype=torch.bfloat16)
    assert loaded.model.model.norm.weight.dtype == torch.bfloat16
    assert all(layer.weight.dtype == torch.float32 for layer in bit_layers(loaded.model).values())


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


def test_tensors_of_different_block_types_have_schemes_of_their_own(tmp_path):
    made = make(kinds=("Q1_0", "TQ2_0", "Q2_0"))
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    found = {scheme.describe() for scheme in loaded.record.schemes.values()}
    assert found == {"binary per group 128", "ternary per group 256", "ternary per group 64"}


def test_ternary_types_without_a_zero_are_binary(tmp_path):
    assert load(make(kinds=("Q2_0", "TQ2_0"), binary=True), tmp_path).record.weight.name == "binary"


@pytest.mark.parametrize(("per", "granularity"), [("tensor", "tensor"), ("row", "row"), ("block", "group")])
def test_scales_that_do_not_change_within_a_weight_or_a_row_are_one_scale(per, granularity, tmp_path):
    made = make(per=per)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.granularity == granularity


def test_a_linear_of_another_type_stays_float_and_is_not_selected(tmp_path):
    made = make()
    name = "model.layers.1.mlp.up_proj"
    del made.expected[name]
    made.tensors["blk.1.ffn_up.weight"] = float_tensor(made.model.get_submodule(name).weight.detach(), "F16")
    loaded = load(made, tmp_path)
    assert type(loaded.model.get_submodule(name)) is torch.nn.Linear
    assert loaded.record.selection.exclude == (name,)
    assert len(loaded.record.layers) == 13


def with_scale(made, value):
    codes, scale = made.expected["model.layers.0.mlp.up_proj"]
    scale[3, 1] = value
    made.tensors["blk.0.ffn_up.weight"] = one_bit_tensor(codes, scale, "Q2_0")
    return made


def test_a_subnormal_scale_is_kept_exactly(tmp_path):
    made = with_scale(make(), 3 * 2.0**-24)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.scale_dtype == "float32"


@pytest.mark.parametrize("value", [-0.0, -0.01])
def test_a_scale_that_has_no_1_bit_layer_is_refused_by_row_and_block(value, tmp_path):
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight: the scale of row 3, block 1 is -0"):
        load(with_scale(make(), value), tmp_path)


def test_a_scale_of_nan_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"blk\.0\.ffn_up\.weight: .*infinite or NaN"):
        load(with_scale(make(), float("nan")), tmp_path)


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
    long_rope: "rotary positions in a way that is not read here",
    strange_factors: "none of Llama 3's",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_file_that_contradicts_itself_is_refused(damage, tmp_path):
    made = make()
    damage(made)
    with pytest.raises(FormatError, match=DAMAGE[damage]):
        load(made, tmp_path)


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


def blocks_of(packed, name, made):
    """The bytes that a packed layer has in the type of the file it came from."""
    architecture = architecture_named(made.metadata["general.architecture"])
    target = architecture.to_gguf(f"{name}.weight")
    layer, kind = packed.layer(name), {number: kind for kind, number in gguf_files.TYPES.items()}
    rows = (architecture.rows_to_gguf(name, part, packed.config) for part in (layer.codes, layer.scale))
    return target, encode(*rows, kind[made.tensors[target].type_id].lower())


@pytest.mark.parametrize("kind", ONE_BIT)
def test_packed_without_training_every_block_is_that_of_the_file_byte_for_byte(kind, tmp_path):
    made = make(kinds=(kind,))
    loaded = load(made, tmp_path)
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    with open_packed(tmp_path / "packed") as packed:
        assert len(packed.layers) == 14
        for name in packed.layers:
            target, blocks = blocks_of(packed, name, made)
            assert blocks.numpy().tobytes() == made.tensors[target].data, name


def test_a_record_and_its_model_are_saved_and_found_again(tmp_path):
    loaded = load(make(kinds=("Q1_0",)), tmp_path)
    save_converted(loaded.model, loaded.record, tmp_path / "merged", loaded.tokenizer)
    model, _, record = load_converted(tmp_path / "merged")
    assert record == loaded.record
    assert torch.equal(logits(model), logits(loaded.model))
    assert "binary" in json.loads((tmp_path / "merged" / "conversion.json").read_text())["weight"]["name"]


def train_steps(model, steps=3):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=2.0)
    ids = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(1))
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_a_lora_inside_trains_on_the_file_s_weights_and_merges_into_them(tmp_path):
    made = make(kinds=("Q1_0",))
    loaded = load(made, tmp_path)
    before = {name: layer.quantized()[0] for name, layer in bit_layers(loaded.model).items()}
    adapted = train_steps(attach(loaded.model, AdapterConfig(rank=4)), steps=6)
    trained = logits(adapted)
    merged = merge(adapted)
    assert torch.equal(logits(merged), trained)
    flipped = sum(int((layer.quantized()[0] != before[name]).sum()) for name, layer in bit_layers(merged).items())
    assert flipped > 0
    export_packed(merged, loaded.tokenizer, tmp_path / "packed")
    with open_packed(tmp_path / "packed") as packed:
        for name in packed.layers:
            assert blocks_of(packed, name, made)[1].numel() > 0


def with_zero_blocks(made, kind):
    """Scale 0 for a block in every third row of the linears, over codes of 0 and others, and for padding tokens."""
    for index, (name, (codes, scale)) in enumerate(made.expected.items()):
        scale[index % 3 :: 3, -1] = 0
        if kind != "Q1_0":
            codes[index % 3 :: 6, -BLOCKS[kind] :] = 0
        target = architecture_named("llama").to_gguf(f"{name}.weight")
        heads = {"attn_q": 4, "attn_k": 2}.get(target.split(".")[-2], 0)
        rows = [rotated_rows(part, heads) if heads else part for part in (codes, scale)]
        made.tensors[target] = one_bit_tensor(*rows, kind)
    codes, scale = grid((VOCABULARY, 256), kind, seed=99)
    codes[-3:], scale[-3:] = int(kind == "Q1_0"), 0
    made.tensors["token_embd.weight"] = one_bit_tensor(codes, scale, kind)
    made.expected |= dict.fromkeys(("model.embed_tokens", "lm_head"), (codes, scale))
    return made


@pytest.mark.parametrize("kind", ONE_BIT)
def test_blocks_of_scale_0_come_in_exactly_and_go_out_byte_for_byte(kind, tmp_path):
    made = with_zero_blocks(make(kinds=(kind,)), kind)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.scale_dtype == "float16"
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    report = validate(tmp_path / "packed", against=loaded.model, num_prompts=2, new_tokens=2, num_tokens=64)
    assert report.passed, report.first_failure
    assert tuple(level.name for level in report.levels) == LEVEL_NAMES
    export_as("gguf", tmp_path / "packed", tmp_path / "out", ExportOptions(type=kind.lower(), pre_tokenizer="gpt-2"))
    first, second = open_gguf(tmp_path / "made.gguf"), open_gguf(tmp_path / "out" / "model.gguf")
    for name in first.tensors:
        assert second.rows(name).tobytes() == first.rows(name).tobytes(), name


@pytest.mark.parametrize("surrogate", [Identity(), Clipped(), Tanh()], ids=lambda surrogate: surrogate.name)
@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0"])
def test_training_on_blocks_of_scale_0_stays_finite(kind, surrogate, tmp_path):
    loaded = load(with_zero_blocks(make(kinds=(kind,)), kind), tmp_path)
    set_training(loaded.model, ActivationScheme("int8"), surrogate)
    train_steps(loaded.model, steps=2)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in loaded.model.parameters())
    assert bool(torch.isfinite(logits(loaded.model)).all())


def test_a_lora_inside_over_blocks_of_scale_0_merges_and_is_saved(tmp_path):
    loaded = load(with_zero_blocks(make(kinds=("Q2_0",)), "Q2_0"), tmp_path)
    save_converted(loaded.model, loaded.record, tmp_path / "merged", loaded.tokenizer)
    again, _, _ = load_converted(tmp_path / "merged")
    for name, layer in bit_layers(again).items():
        assert all(map(torch.equal, layer.quantized(), bit_layers(loaded.model)[name].quantized())), name
    adapted = train_steps(attach(again, AdapterConfig(rank=4)))
    trained = logits(adapted)
    assert torch.equal(logits(merge(adapted)), trained)


def test_full_fine_tuning_moves_weights_and_scales_from_where_the_file_left_them(tmp_path):
    made = make()
    loaded = load(made, tmp_path)
    scales = {name: layer.scale.clone() for name, layer in bit_layers(loaded.model).items()}
    train_steps(loaded.model)
    assert all(not torch.equal(layer.scale, scales[name]) for name, layer in bit_layers(loaded.model).items())


@pytest.mark.skipif(not FILES_OF_LLAMA_QUANTIZE, reason="set BITNET_TEST_ONE_BIT_GGUF to files of llama-quantize, a:b")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", FILES_OF_LLAMA_QUANTIZE, ids=lambda path: path.name)
def test_files_of_llama_quantize_come_in_and_go_out_byte_for_byte(path, tmp_path):
    loaded = load_pretrained(str(path))
    file, config = open_gguf(path), loaded.model.config.to_dict()
    architecture = architecture_named(file.metadata["general.architecture"])
    kinds = {number: kind for kind, number in gguf_files.TYPES.items()}
    for name, layer in bit_layers(loaded.model).items():
        target = architecture.to_gguf(f"{name}.weight")
        target = target if target in file.tensors else "token_embd.weight"
        rows = (architecture.rows_to_gguf(name, part, config) for part in layer.quantized())
        kind = kinds[file.tensors[target].type_id].lower()
        assert encode(*rows, kind).numpy().tobytes() == file.rows(target).tobytes(), name


def config_of(loaded):
    """What decides the logits, of a config."""
    left_out = (
        "_name_or_path",
        "_model_name_or_path",
        "architectures",
        "dtype",
        "model_type",
        "use_cache",
        "transformers_version",
    )
    return {key: value for key, value in loaded.model.config.to_dict().items() if key not in left_out}


ROUND_TRIPS = {**{name: ("Q2_0", name) for name in ARCHITECTURES}, **dict.fromkeys(ONE_BIT, None)}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_exported_without_training_the_file_has_the_same_blocks_and_loads_as_the_same_model(case, tmp_path):
    kind, name = ROUND_TRIPS[case] or (case, "llama")
    config = ARCHITECTURES[name] if ROUND_TRIPS[case] else LLAMA
    made = make(config, (kind,), name.partition(" ")[0])
    loaded = load(made, tmp_path)
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    options = ExportOptions(type=kind.lower(), pre_tokenizer="gpt-2")
    export_as("gguf", tmp_path / "packed", tmp_path / "out", options)
    first, second = open_gguf(tmp_path / "made.gguf"), open_gguf(tmp_path / "out" / "model.gguf")
    for tensor in first.tensors.values():
        assert second.tensors[tensor.name].type_id == tensor.type_id, tensor.name
        assert second.rows(tensor.name).tobytes() == first.rows(tensor.name).tobytes(), tensor.name
    again = load_pretrained(str(tmp_path / "out" / "model.gguf"))
    assert config_of(again) == config_of(loaded)
    assert torch.equal(logits(again.model), logits(loaded.model))
