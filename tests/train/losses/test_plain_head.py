from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig

from bitnet_train.model.rounded_table import round_floats
from bitnet_train.train.loop.rng import generator_states
from bitnet_train.train.losses.int8_teacher import in_int8
from bitnet_train.train.losses.plain_head import plain_head
from tests.fixtures.families import (
    CONFIGS,
    DECODER,
    MIXTURES,
    adapted,
    converted_model,
    mixture_model,
    tiny_model,
    token_ids,
)

CAPPED = {"gemma2"}


@pytest.mark.parametrize("family", CONFIGS)
def test_body_and_head_make_the_very_logits_of_every_family_that_does_no_more(family: str) -> None:
    model = converted_model(family)
    round_floats(model)
    found = plain_head(model.train())
    assert (found is None) == (family in CAPPED)
    if found is not None:
        ids = token_ids()
        model.eval()
        states = found.body(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.equal(found.head(states), model(input_ids=ids).logits)


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_of_experts_has_one(family: str) -> None:
    assert plain_head(mixture_model(family)) is not None


def test_an_adapter_hides_it_not() -> None:
    model = adapted()
    assert plain_head(model).body is model.get_base_model().model


def test_a_teacher_in_int8_has_one() -> None:
    batch = {"input_ids": torch.arange(8)[None]}
    assert plain_head(in_int8(tiny_model(), batch)) is not None


@pytest.mark.parametrize(
    "config", [GraniteConfig(**DECODER, logits_scaling=2.0), CohereConfig(**DECODER)], ids=["granite", "cohere"]
)
def test_logits_that_are_scaled_are_left_to_their_model(config: object) -> None:
    assert plain_head(AutoModelForCausalLM.from_config(config)) is None


def test_a_head_of_another_kind_is_left_alone() -> None:
    class Doubling(torch.nn.Linear):
        pass

    model = tiny_model()
    model.lm_head.__class__ = Doubling
    assert plain_head(model) is None


def test_asking_draws_no_random_number_and_dropout_does_not_deceive_it() -> None:
    model = tiny_model("gpt2").train()
    before = generator_states()
    assert plain_head(model) is not None
    assert torch.equal(before["torch"], generator_states()["torch"])
    assert model.config.embd_pdrop > 0
