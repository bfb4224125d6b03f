from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import log_softmax
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitnet_train.errors import DataError
from bitnet_train.evaluate.perplexity import Perplexity, perplexity
from bitnet_train.evaluate.windows import text_windows

TEXT = "Every token but the first is predicted exactly once. " * 4


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(["<|end|>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=257,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            attention_dropout=0.5,
            initializer_range=0.3,
        )
        return LlamaForCausalLM(config).eval()


@torch.no_grad()
def by_hand(model: LlamaForCausalLM, rows: dict[str, torch.Tensor]) -> Perplexity:
    """One row at a time, without padding, in float64."""
    total, tokens = 0.0, 0
    for ids, labels, mask in zip(rows["input_ids"], rows["labels"], rows["attention_mask"], strict=True):
        length = int(mask.sum())
        logits = model(input_ids=ids[None, :length]).logits[0].double()
        for position in range(1, length):
            if labels[position] != -100:
                total -= float(log_softmax(logits[position - 1], dim=-1)[labels[position]])
                tokens += 1
    return Perplexity(total / tokens, math.exp(total / tokens), tokens)


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_perplexity_is_what_a_loop_over_tokens_gives(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, batch_rows: int
) -> None:
    rows = text_windows(TEXT, tokenizer, 32)
    found, expected = perplexity(model, rows, batch_rows=batch_rows), by_hand(model, rows)
    assert found.tokens == expected.tokens == len(TEXT)
    assert found.nats == pytest.approx(expected.nats, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(found.nats))


def test_masked_tokens_do_not_count(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = text_windows(TEXT, tokenizer, 32)
    rows["labels"][:, 5:20] = -100
    rows["labels"][1] = -100
    found, expected = perplexity(model, rows), by_hand(model, rows)
    assert found.tokens == expected.tokens < len(TEXT)
    assert found.nats == pytest.approx(expected.nats, rel=1e-6)


def test_the_average_is_over_tokens_and_not_over_batches(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = text_windows(TEXT, tokenizer, 32)
    uneven = [{name: tensor[part] for name, tensor in rows.items()} for part in (slice(0, 1), slice(1, None))]
    assert perplexity(model, uneven).nats == pytest.approx(perplexity(model, rows).nats, rel=1e-6)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    blank = LlamaForCausalLM(model.config)
    torch.nn.init.zeros_(blank.lm_head.weight)
    assert perplexity(blank, text_windows(TEXT, tokenizer, 64)).perplexity == pytest.approx(257, rel=1e-5)


def test_dropout_is_off_while_measuring_and_every_module_keeps_its_mode(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = text_windows(TEXT, tokenizer, 64)
    expected = perplexity(model, rows)
    model.model.layers[0].train()
    modes = [module.training for module in model.modules()]
    assert perplexity(model, rows) == expected
    assert [module.training for module in model.modules()] == modes
    model.eval()


@pytest.mark.parametrize("context_tokens", [2, 7, 64, 500])
def test_windows_predict_every_token_but_the_first_once(
    context_tokens: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = text_windows(TEXT, tokenizer, context_tokens)
    assert {tensor.dtype for tensor in rows.values()} == {torch.int64}
    assert {tensor.shape for tensor in rows.values()} == {rows["labels"].shape}
    assert rows["labels"].shape[1] == context_tokens
    predicted = rows["labels"][rows["labels"] != -100].tolist()
    assert predicted == tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert rows["input_ids"][0, 0] == tokenizer.bos_token_id
    assert bool((rows["labels"][rows["attention_mask"] == 0] == -100).all())


def test_the_number_of_windows_can_be_limited(tokenizer: PreTrainedTokenizerFast) -> None:
    whole, part = text_windows(TEXT, tokenizer, 16), text_windows(TEXT, tokenizer, 16, max_windows=3)
    assert torch.equal(part["input_ids"], whole["input_ids"][:3])


def test_a_text_of_one_token_and_rows_without_labels_are_errors(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=r"1 token\(s\) predicts nothing"):
        text_windows("", tokenizer, 16)
    rows = text_windows(TEXT, tokenizer, 16)
    rows["labels"][:] = -100
    with pytest.raises(DataError, match="at least one labelled token"):
        perplexity(model, rows)
    with pytest.raises(DataError, match="at least one labelled token"):
        perplexity(model, [])


def test_logits_that_are_not_finite_show_in_the_figure(
    tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM
) -> None:
    broken = LlamaForCausalLM(model.config)
    torch.nn.init.constant_(broken.lm_head.weight, math.nan)
    assert math.isnan(perplexity(broken, text_windows(TEXT, tokenizer, 64)).nats)
