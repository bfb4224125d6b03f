"""What the native runtime does around a forward pass, for every kind of model: batches, prompt caches, threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train.errors import DataError
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from bitnet_train.runtime.load import load
from bitnet_train.runtime.native.families import FAMILIES as NATIVE
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.validation.check_model import greedy_continuation
from bitnet_train.validation.shared_operations import shared_operations
from tests.fixtures.native_folders import FAMILIES, FAMILY_OF_EACH_CLASS, IDS

LONG = np.random.default_rng(4).integers(0, 256, 600).tolist()


@pytest.fixture(params=FAMILY_OF_EACH_CLASS)
def folder(request, make_folder):
    return make_folder(request.param)


def test_a_tiny_model_of_every_class_is_tested(make_folder):
    classes = [NativeModel.load(make_folder(name)).manifest.model_class for name in FAMILY_OF_EACH_CLASS]
    assert sorted(classes) == sorted(NATIVE)
    assert set(FAMILY_OF_EACH_CLASS) < set(FAMILIES)


def test_texts_together_are_written_as_alone(folder):
    native = NativeModel.load(folder, num_threads=2)
    prompts = ["def f(x):", "a", "import os, sys, re and what else there is"]
    together = native.generate(prompts, max_new_tokens=12)
    alone = [native.generate(prompt, max_new_tokens=12) for prompt in prompts]
    assert [made.token_ids for made in together] == [made.token_ids for made in alone]


def test_a_prompt_cache_gives_the_same_text(folder, tmp_path):
    first = NativeModel.load(folder).generate("the same long beginning", max_new_tokens=8)
    for _ in range(2):
        made = NativeModel.load(folder).generate(
            "the same long beginning", max_new_tokens=8, prompt_cache=tmp_path / "cache"
        )
        assert made.token_ids == first.token_ids
    assert (tmp_path / "cache").is_file()


def test_a_prompt_in_pieces_and_on_other_threads_has_the_logits_of_the_whole(folder):
    native, other = NativeModel.load(folder, num_threads=1), NativeModel.load(folder, num_threads=3)
    whole = native.logits(IDS)
    assert np.array_equal(other.logits(IDS), whole)
    for length in (1, 9, 33):
        assert np.array_equal(native.logits(IDS[:length]), whole[:length])


def test_codes_of_keys_and_values_write_nearly_the_same(folder):
    exact, coded = NativeModel.load(folder), NativeModel.load(folder, cache_dtype="int8")
    expected, made = exact.logits(IDS), coded.logits(IDS)
    assert 0 < np.abs(made - expected).mean() < 0.1 * expected.std()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("roles", [("attention", "mlp"), ("mlp",)])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_projections_in_one_are_cut_with_their_scales(make_folder, granularity, roles):
    folder = make_folder("phi3", WeightScheme("ternary", granularity, 32), roles=roles, tokenizer=False)
    model = load(folder)
    with shared_operations(model):
        expected = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.array_equal(NativeModel.load(folder).logits(IDS), expected)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", ["gemma3_long", "mistral_with_a_wide_window"])
def test_pages_shared_out_among_threads_change_nothing(make_folder, family):
    """600 tokens are three pages: layers that see all of them share them out, layers with a window do not."""
    folder = make_folder(family)
    one, two = (NativeModel.load(folder, num_threads=count).generate_ids(LONG, 12, stop_ids=()) for count in (1, 2))
    model = load(folder)
    with shared_operations(model):
        expected = greedy_continuation(model, torch.tensor([LONG]), 12)[0, len(LONG) :].tolist()
    assert one == two == expected


@pytest.mark.slow
@torch.no_grad()
def test_a_model_of_more_tokens_than_it_was_trained_on_goes_as_far_as_its_frequencies_do(make_folder):
    folder = make_folder("phi3_of_more_tokens_than_it_was_trained_on")
    native, model = NativeModel.load(folder), load(folder)
    with shared_operations(model):
        model(torch.tensor([LONG]))  # leaves the frequencies of long texts behind
        expected = model(torch.tensor([LONG[:96]])).logits[0].numpy()
    assert np.array_equal(native.logits(LONG[:96]), expected)
    with pytest.raises(DataError, match=r"context is 96 tokens in the native engine.*`generate.engine=hf`.* up to 640"):
        native.logits(LONG[:97])
