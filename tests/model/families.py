"""A tiny random model of every architecture that conversion is promised for."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from bitnet_train.model.convert import convert
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

VOCABULARY = 97
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GATED = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}

CONFIGS = {
    "llama": lambda: LlamaConfig(**DECODER, tie_word_embeddings=False),
    "smollm": lambda: LlamaConfig(**DECODER, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**DECODER),
    "qwen3": lambda: Qwen3Config(**DECODER, head_dim=16),
    "mistral": lambda: MistralConfig(**DECODER),
    "gemma": lambda: GemmaConfig(**DECODER, head_dim=16),
    "gemma2": lambda: Gemma2Config(**DECODER, head_dim=16),
    "phi": lambda: PhiConfig(**DECODER),
    "phi3": lambda: Phi3Config(**DECODER),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=64, n_inner=96),
}
LEAVES = {
    **dict.fromkeys(("llama", "smollm", "qwen2", "qwen3", "mistral", "gemma", "gemma2"), GATED),
    "phi": {"attention": ("q_proj", "k_proj", "v_proj", "dense"), "mlp": ("fc1", "fc2")},
    "phi3": {"attention": ("qkv_proj", "o_proj"), "mlp": ("gate_up_proj", "down_proj")},
    "gpt2": {"attention": ("c_attn", "c_proj"), "mlp": ("c_fc", "c_proj")},
}


def tiny_model(family="llama", seed=0):
    """A random float32 model in evaluation mode whose biases and norms are not the trivial 0 and 1."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[family](), dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "embed" not in name and "wte" not in name:
                parameter.copy_(0.08 * torch.randn_like(parameter))
    return model.eval()


def converted_model(family="llama", weight=None, activation="int8", **options):
    """The tiny model with its decoder linears converted."""
    model = tiny_model(family)
    convert(model, weight=weight or WeightScheme(), activation=ActivationScheme(activation), **options)
    return model


def token_ids(rows=2, tokens=12, seed=0):
    """Ids int64 [rows, tokens]."""
    return torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model):
    """Evaluation logits for the same ids every time."""
    return model.eval()(input_ids=token_ids()).logits


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MIXTURES = {
    "qwen2_moe": lambda: Qwen2MoeConfig(
        **DECODER,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=48,
    ),
    "mixtral": lambda: MixtralConfig(**DECODER, num_local_experts=4),
}


def vision_model(vision_width=32):
    """A random Gemma 3 that sees pictures."""
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config={**DECODER, "head_dim": 16},
        vision_config={**VISION, "hidden_size": vision_width},
        mm_tokens_per_image=4,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def mixture_model(family):
    """A random mixture of experts."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MIXTURES[family](), dtype=torch.float32).eval()
