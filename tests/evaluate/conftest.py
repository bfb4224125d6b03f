"""Two tiny models that differ, a tokenizer of bytes, and rows of text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitnet_train.evaluate.windows import windows

TEXT = "Every token but the first is predicted exactly once, and the rare ones count: zyx! " * 4


def _model(seed: int, vocabulary: int = 257) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            attention_dropout=0.5,
            initializer_range=0.3,
        )
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(["<|end|>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")


@pytest.fixture(scope="session")
def student() -> LlamaForCausalLM:
    return _model(0)


@pytest.fixture(scope="session")
def teacher() -> LlamaForCausalLM:
    return _model(1)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., LlamaForCausalLM]:
    return _model


@pytest.fixture
def rows(tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    return windows(TEXT, tokenizer, 32)
