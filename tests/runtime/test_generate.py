from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch

from bitnet_train.errors import DataError
from bitnet_train.runtime.generate import generate
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.runtime.native.model import NativeModel


@pytest.fixture(scope="module")
def model(exported):
    return load(exported)


@pytest.fixture(scope="module")
def tokenizer(exported):
    return load_tokenizer(exported)


def test_greedy_text_is_that_of_the_trained_model(model, tokenizer, trained):
    packed = generate(model, tokenizer, "def f(x):", max_new_tokens=12)
    assert packed.token_ids == generate(trained, tokenizer, "def f(x):", max_new_tokens=12).token_ids
    assert packed.num_prompt_tokens == 9
    assert len(packed.token_ids) == 12
    assert packed.text == tokenizer.decode(packed.token_ids, skip_special_tokens=True)


def test_each_token_is_read_once_whatever_the_model_was_saved_with(exported, tokenizer):
    model = load(exported)
    model.generation_config.use_cache = False
    lengths = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    generation = generate(model, tokenizer, "def f(x):", max_new_tokens=6)
    assert lengths == [generation.num_prompt_tokens, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("beyond", [10**6, -1])
def test_a_padding_token_that_the_model_does_not_know_changes_nothing(beyond, exported, tokenizer):
    model = load(exported)
    expected = generate(model, tokenizer, "def f(x):", max_new_tokens=6).token_ids
    model.generation_config.pad_token_id = beyond
    assert generate(model, tokenizer, "def f(x):", max_new_tokens=6).token_ids == expected


def test_the_pieces_of_a_stream_make_up_the_text(model, tokenizer):
    pieces = []
    generation = generate(model, tokenizer, "a b", max_new_tokens=10, stream=pieces.append)
    assert "".join(pieces) == generation.text
    assert all(pieces)


@pytest.mark.slow
def test_sampling_depends_on_the_seed_and_on_nothing_else(model, tokenizer):
    def sample(seed):
        return generate(model, tokenizer, "x", max_new_tokens=20, temperature=1.5, seed=seed).token_ids

    before = torch.random.get_rng_state()
    assert sample(1) == sample(1) != sample(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_top_k_of_one_is_greedy(model, tokenizer):
    greedy = generate(model, tokenizer, "x", max_new_tokens=8)
    assert generate(model, tokenizer, "x", max_new_tokens=8, temperature=1.0, top_k=1).token_ids == greedy.token_ids
    assert generate(model, tokenizer, "x", max_new_tokens=8, temperature=1.0, top_p=1e-6).token_ids == greedy.token_ids


def test_a_chat_prompt_goes_through_the_template(model, tokenizer):
    chat = generate(model, tokenizer, "hi", max_new_tokens=4, chat=True)
    plain = generate(model, tokenizer, "user: hi\nassistant:", max_new_tokens=4)
    assert (chat.token_ids, chat.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)


def test_a_chat_without_a_template_and_an_empty_prompt_are_refused(model, byte_tokenizer, exported):
    bare = load_tokenizer(exported)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        generate(model, bare, "hi", chat=True)
    with pytest.raises(DataError, match="prompt is empty"):
        generate(model, byte_tokenizer, "")


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_generation_warns_about_nothing(model, tokenizer, temperature, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(model, tokenizer, "quiet", max_new_tokens=2, temperature=temperature)
    assert caplog.text == ""


def test_a_text_past_the_context_is_refused_as_natively(model, tokenizer, exported):
    context = model.config.max_position_embeddings
    for engine in (partial(generate, model, tokenizer), NativeModel.load(exported).generate):
        with pytest.raises(DataError, match=rf"but this model's context is {context} tokens"):
            engine("def f(x):", max_new_tokens=context)
