"""The native model against the Hugging Face path of the same folder: every family, scheme, choice of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, WeightScheme
from bitnet_train.runtime.generate import generate
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.validation.check_model import greedy_continuation
from bitnet_train.validation.shared_operations import shared_operations
from tests.fixtures.native_folders import IDS
from tests.fixtures.schemes import CODE_SETS, weight_scheme

PROMPTS = ["def f(x):", "Once upon a time", "import os", "x"]


@pytest.fixture(scope="module")
def pretrained(pretrained_folder):
    return NativeModel.load(pretrained_folder, num_threads=1)


@torch.no_grad()
def expected_logits(folder):
    """Those of transformers with the runtime's float operations: the same bits."""
    model = load(folder)
    with shared_operations(model):
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.slow
def test_every_family_has_the_logits_of_torch(family_folder):
    assert np.array_equal(NativeModel.load(family_folder).logits(IDS), expected_logits(family_folder))


@torch.no_grad()
def test_every_family_has_nearly_the_logits_of_torch_with_its_own_float_operations(family_folder):
    model, reference = NativeModel.load(family_folder), load(family_folder)
    actual, expected = model.logits(IDS), reference(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(actual - expected).mean() < 0.02 * expected.std(), "at most a few moved codes"


@pytest.mark.slow
@pytest.mark.parametrize("activation", [name for name in ACTIVATION_SCHEMES if name != "none"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_every_scheme_has_the_logits_of_torch(make_folder, name, granularity, activation):
    for scale_dtype, learnable in (("float16", False), ("float32", True)):
        scheme = weight_scheme(name, granularity, 32, learnable, scale_dtype)
        folder = make_folder("llama_biased_and_tied", scheme, activation, tokenizer=False)
        assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "llama_biased_and_tied", "qwen3"])
@pytest.mark.parametrize("roles", [("mlp",), ("attention", "head"), ("embedding",), ("mlp", "head", "embedding")])
def test_any_choice_of_packed_layers_has_the_logits_of_torch(make_folder, family, roles):
    folder = make_folder(family, WeightScheme("ternary", "group", 32), roles=roles, tokenizer=False)
    assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@pytest.mark.parametrize(
    ("family", "tables"),
    [
        ("llama", {"embedding": "int8"}),
        ("llama", {"head": "int8"}),
        ("llama", {"embedding": "int8", "head": "int8"}),
        ("qwen3", {"embedding": "int8", "head": "int8"}),
        ("llama", {"embedding": "int4", "head": "int4"}),
        ("llama", {"embedding": "int5", "head": "int4"}),
    ],
)
def test_int8_tables_have_the_logits_of_torch(make_folder, family, tables):
    folder = make_folder(family, tokenizer=False, **tables)
    assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@pytest.mark.slow
@torch.no_grad()
def test_every_family_writes_what_torch_writes(family_folder):
    model, reference = NativeModel.load(family_folder), load(family_folder)
    for start in range(0, 36, 9):
        prompt = IDS[start : start + 4]
        with shared_operations(reference):
            expected = greedy_continuation(reference, torch.tensor([prompt]), 24)[0, 4:].tolist()
        assert model.generate_ids(prompt, 24, stop_ids=()) == expected


@pytest.mark.slow
def test_the_bundled_model_writes_what_torch_writes(pretrained, pretrained_folder):
    reference, tokenizer = load(pretrained_folder), load_tokenizer(pretrained_folder)
    for prompt in PROMPTS[:2]:
        ours, theirs = (
            pretrained.generate(prompt, max_new_tokens=24),
            generate(reference, tokenizer, prompt, max_new_tokens=24),
        )
        assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
        assert ours.num_prompt_tokens == theirs.num_prompt_tokens
