"""Two tiny models that differ, a tokenizer of bytes, and rows of text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from bitnet_train.evaluate.windows import windows
from tests.fixtures.data_examples import make_llama
from tests.fixtures.trained_models import byte_level

TEXT = "Every token but the first is predicted exactly once, and the rare ones count: zyx! " * 4


def _model(seed: int, vocabulary: int = 257) -> LlamaForCausalLM:
    return make_llama(vocabulary, 128, seed=seed, dropout=0.5)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level("<|end|>", bos_token="<|end|>", eos_token="<|end|>")


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
