"""Tiny models that stand for trained ones: random latents, scales, biases and norms, every seed its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # for `scripts` and `tests`; last, so that the package that is tested is the installed one
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PYTHONSAFEPATH"] = "1"  # processes that tests start must run what is installed, not the folder they are in
if "PYTEST_XDIST_WORKER" in os.environ:  # one core a worker, also for the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from bitnet_train import progress
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.select import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

pytest_plugins = ["tests.fixtures.native_folders", "tests.fixtures.packed_folders"]

VOCABULARY = 258  # 256 bytes, end of text, padding

CONFIGS = {
    "llama": LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=256,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=257,
    ),
    "odd": LlamaConfig(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=257,
    ),
    "gpt2": GPT2Config(
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=256,
        vocab_size=VOCABULARY,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=257,
    ),
}

MakeTrained = Callable[..., PreTrainedModel]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with a slow test first: workers take whole files, and none is to be left alone with a long one.

    Those that need a built llama.cpp are marked `toolchain`.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        if item.path.parent.name == "llama_cpp":
            item.add_marker("toolchain")
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back the `--quiet` of a command that an earlier test ran in this process."""
    monkeypatch.setattr(progress, "_is_quiet", False)


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Run transformers' BitNet operations as written: it compiles them, which is slow and kept for other CPUs."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="session")
def make_trained() -> MakeTrained:
    """Build a converted model in evaluation mode with the numbers of a trained one: none is 0 or 1."""

    def make(
        family: str = "llama",
        weight: WeightScheme | None = None,
        activation: str = "int8",
        roles: tuple[str, ...] = ("attention", "mlp"),
        seed: int = 0,
    ) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[family]), dtype=torch.float32)
            for name, parameter in model.named_parameters():
                center = 1.0 if ("norm" in name and name.endswith("weight")) or ".ln_" in name else 0.0
                parameter.copy_(center + 0.05 * torch.randn_like(parameter))
            embedding = model.get_input_embeddings().weight
            embedding.copy_(embedding.bfloat16())  # as a base model that was published in bf16
            convert(
                model,
                selection=Selection(roles=roles),
                weight=weight or WeightScheme(),
                activation=ActivationScheme(activation),
            )
            for layer in bit_layers(model).values():
                if layer.scale is not None:
                    layer.scale.mul_(1 + 0.1 * torch.randn_like(layer.scale))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows every byte and nothing else, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    return fast
