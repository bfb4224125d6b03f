"""Exported folders of every architecture that the native runtime computes, and of the bundled pretrained model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from bitnet_train.exporters import export_packed
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.load import load_pretrained
from bitnet_train.model.select import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

DECODER: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 257,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
YARN_WITH_SCALES = YARN | {"mscale": 0.7, "mscale_all_dim": 0.3}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**DECODER),
    "llama_biased_and_tied": lambda: LlamaConfig(
        **DECODER, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "llama_wide_heads": lambda: LlamaConfig(**DECODER, head_dim=24, rope_parameters=LLAMA3),
    "llama_one_kv_head": lambda: LlamaConfig(**DECODER | {"num_key_value_heads": 1}, rope_parameters=YARN),
    "mistral_with_a_window": lambda: MistralConfig(**DECODER, sliding_window=8),
    "mistral_with_a_wide_window": lambda: MistralConfig(
        **DECODER | {"max_position_embeddings": 640}, sliding_window=270, rope_parameters=YARN_WITH_SCALES
    ),
    "mistral_without": lambda: MistralConfig(**DECODER, sliding_window=None, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**DECODER, rope_parameters=LINEAR),
    "qwen3": lambda: Qwen3Config(**DECODER, head_dim=32, tie_word_embeddings=True),
}

MakeFolder = Callable[..., Path]


def random_model(config: PreTrainedConfig, roles: tuple[str, ...], weight: WeightScheme, activation: str) -> Any:
    """A converted model whose every number is random: large weights, so that attention looks at few tokens."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            center = 1.0 if "norm" in name else 0.0
            parameter.copy_(center + (0.2 if parameter.ndim == 2 else 0.05) * torch.randn_like(parameter))
        convert(model, selection=Selection(roles=roles), weight=weight, activation=ActivationScheme(activation))
        for layer in bit_layers(model).values():
            if layer.scale is not None:
                layer.scale.mul_(1 + 0.1 * torch.randn_like(layer.scale))
    return model.eval()


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Any) -> MakeFolder:
    """Export a random model of a family, once for all tests that ask for the same."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def make(
        family: str = "llama",
        weight: WeightScheme | None = None,
        activation: str = "int8",
        roles: tuple[str, ...] = ("attention", "mlp"),
        tokenizer: bool = True,
        **tables: str,
    ) -> Path:
        key = (family, weight, activation, roles, tokenizer, *tables.items())
        if key not in made:
            made[key] = root / f"{len(made)}-{family}"
            model = random_model(FAMILIES[family](), roles, weight or WeightScheme(), activation)
            export_packed(model, byte_tokenizer if tokenizer else None, made[key], {}, **tables)
        return made[key]

    return make


@pytest.fixture(params=FAMILIES)
def family_folder(request: pytest.FixtureRequest, make_folder: MakeFolder) -> Path:
    return make_folder(request.param)


@pytest.fixture
def damaged(make_folder: MakeFolder, tmp_path: Path) -> Path:
    """Return a copy of a folder that a test may damage."""
    return shutil.copytree(make_folder(), tmp_path / "copy")


@pytest.fixture(scope="session")
def pretrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundled model, converted and exported: weights that were trained, and its own tokenizer."""
    loaded = load_pretrained("tiny")
    model: PreTrainedModel = loaded.model
    convert(model, weight=WeightScheme("ternary", "group", 64), activation=ActivationScheme("int8"))
    folder = tmp_path_factory.mktemp("pretrained") / "out"
    export_packed(model.eval(), loaded.tokenizer, folder, {})
    return folder
