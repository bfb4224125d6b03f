"""Models as GGUF files with 1-bit weights, beside the dense ones they stand for; for the tests of what comes in."""

from dataclasses import dataclass, field

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

from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import bit_layers, set_training
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.quant.surrogate import Identity
from tests.gguf import gguf_files
from tests.gguf.gguf_files import BLOCKS, VOCABULARY, Tensor, float_tensor, llama_metadata, one_bit_tensor, rotated_rows

gguf = pytest.importorskip("gguf", exc_type=ImportError)

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


def with_scale(made, value):
    codes, scale = made.expected["model.layers.0.mlp.up_proj"]
    scale[3, 1] = value
    made.tensors["blk.0.ffn_up.weight"] = one_bit_tensor(codes, scale, "Q2_0")
    return made


@torch.no_grad()
def make_float(config, architecture="llama", kind="F32", metadata=None):
    """Every tensor as floats, of values that bfloat16 holds. Names are the gguf package's."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        small = 0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0
        parameter.copy_((parameter + small).bfloat16())
    number = next(value for value, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    keys = llama_metadata(config, architecture) if architecture != "gpt2" else gpt2_metadata(config)
    made = Made(model, keys | (metadata or {}))
    heads = {"attn_q": config.num_attention_heads, "attn_k": getattr(config, "num_key_value_heads", 0)}
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        gguf_name = f"{names.get_name(module)}.{leaf}"
        stored = parameter + 1 if architecture.startswith("gemma") and "norm" in name else parameter
        if architecture == "gpt2" and parameter.ndim == 2 and gguf_name.startswith("blk."):
            stored = stored.t()
        if architecture == "llama" and (number_of := heads.get(gguf_name.split(".")[-2])):
            stored = rotated_rows(stored, number_of)
        made.tensors[gguf_name] = float_tensor(stored.contiguous(), "F32" if parameter.ndim == 1 else kind)
    return made
