from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitnet_train.errors import ConfigError
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher import check_comparable, check_same_vocabulary, keep_products_in_bfloat16
from tests.fixtures.tiny_run import llama


def tokenizer(*words: str) -> PreTrainedTokenizerFast:
    model = WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


def test_the_same_tokens_by_the_same_numbers_pass() -> None:
    check_same_vocabulary(tokenizer("?", "a", "b"), tokenizer("?", "a", "b"), "one", "two")


def test_the_first_token_that_differs_is_named_with_both_sizes() -> None:
    with pytest.raises(ConfigError) as caught:
        check_same_vocabulary(tokenizer("?", "a", "b"), tokenizer("?", "b", "a", "c"), "one", "two")
    said = str(caught.value)
    assert "`teacher.source=two`" in said
    assert "`model.source=one`: 4 and 3 tokens" in said
    assert "token 1 is `b` there and `a` here" in said


def test_a_token_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="token 2 is missing there and `b` here"):
        check_same_vocabulary(tokenizer("?", "a", "b"), tokenizer("?", "a"), "one", "two")


def other(**changes: int) -> LlamaForCausalLM:
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2} | changes
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=8, num_attention_heads=2))


def test_another_number_of_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`teacher\.source` gives 65 logits and the model 64"):
        check_comparable(llama(), other(vocab_size=65), LossConfig())


def test_states_of_another_depth_are_refused_only_where_they_are_compared() -> None:
    check_comparable(llama(), other(num_hidden_layers=3), LossConfig())
    with pytest.raises(ConfigError, match=r"num_hidden_layers is 3 and the model's 2"):
        check_comparable(llama(), other(num_hidden_layers=3), LossConfig(hidden=1.0))


@pytest.mark.parametrize("tied", [False, True])
def test_products_kept_in_bfloat16_are_those_that_autocast_takes(tied: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_bias=True,
        tie_word_embeddings=tied,
    )
    teacher = LlamaForCausalLM(config).eval()
    token_ids = torch.randint(64, (3, 12))
    embedding = teacher.get_input_embeddings().weight.clone()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = teacher(token_ids, output_hidden_states=True)
        keep_products_in_bfloat16(teacher)
        after = teacher(token_ids, output_hidden_states=True)
    assert torch.equal(after.logits, before.logits)
    assert all(torch.equal(a, b) for a, b in zip(after.hidden_states, before.hidden_states, strict=True))
    assert torch.equal(teacher.get_input_embeddings().weight, embedding)
    assert {p.dtype for p in teacher.model.layers[0].self_attn.parameters()} == {torch.bfloat16}
