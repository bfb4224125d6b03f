from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.model.convert import convert
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.train.data.chunk import TokenRows, collate, stack_rows
from bitnet_train.train.data.packing import best_fit, keeps_documents_apart, pack
from bitnet_train.train.losses.attention_relation import RelationTaps
from bitnet_train.train.losses.composition import TERMS, forward, token_sums
from bitnet_train.train.losses.kept_answers import TopAnswers
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher_cache import TeacherCache
from bitnet_train.train.losses.token_losses import count_trained

SPACE, VOCABULARY = 32, 96
LENGTHS = [5, 17, 9, 3, 12, 30, 2, 8]

# The largest gap between logits of magnitude up to 8 that came of the same sums in another order: about 100 roundings
# of eps = 2^-23 a value. A leak is five orders above it (`leaks` below).
ROUNDING = 8 * 100 * 2**-23


def llama(**values: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=VOCABULARY, initializer_range=0.3, bos_token_id=0, eos_token_id=0, **sizes, **values
    )
    return LlamaForCausalLM(config).eval()


def documents() -> TokenRows:
    """Rows of one document each, of which the second half of the tokens is trained."""
    numbers = np.random.default_rng(0)
    ids = [numbers.integers(1, VOCABULARY, length).astype(np.int32) for length in LENGTHS]
    return stack_rows(ids, [np.arange(len(part)) >= len(part) // 2 for part in ids], SPACE, 0)


def batches() -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[int, int, int]]]:
    """Return the same documents packed and alone, and of each the packed row, where it begins, and its number."""
    alone, packed = documents(), pack(documents())
    places = []
    for row, numbers in enumerate(packed.documents):
        begins = np.cumsum([0, *(LENGTHS[number] for number in numbers)])
        places += [(row, int(begin), number) for begin, number in zip(begins, numbers, strict=False)]
    return collate(packed.rows), collate(alone), places


def gap(packed: Tensor, alone: Tensor, places: list[tuple[int, int, int]]) -> float:
    """Return the largest difference over all real tokens, [R,L,...] against [D,L,...]."""
    gaps = [(packed[row, begin : begin + LENGTHS[n]] - alone[n, : LENGTHS[n]]).abs().max() for row, begin, n in places]
    return float(torch.stack(gaps).max())


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60))
def test_every_document_is_in_one_row_that_holds_it_and_few_rows_are_needed(lengths: list[int]) -> None:
    rows = best_fit(lengths, 40)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < tokens <= 40 for tokens in filled)
    assert len(rows) <= 11 / 9 * max(1, sum(lengths)) / 20 + 1  # all but one row are more than half full
    assert best_fit(lengths, 40) == rows


def test_the_tokens_and_labels_of_a_document_come_back_from_its_row() -> None:
    packed, alone, places = batches()
    assert len(packed["input_ids"]) == 3 < len(LENGTHS)
    for row, begin, number in places:
        length = LENGTHS[number]
        for name in ("input_ids", "labels"):
            assert torch.equal(packed[name][row, begin : begin + length], alone[name][number, :length])
        assert packed["position_ids"][row, begin : begin + length].tolist() == list(range(length))
    assert int(packed["real_tokens"].sum()) == sum(LENGTHS)
    assert count_trained(packed["labels"]) == count_trained(alone["labels"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_the_logits_of_a_document_in_a_packed_row_are_those_of_the_document_alone(attention: str) -> None:
    model = llama(attn_implementation=attention)
    packed, alone, places = batches()
    expected = forward(model, alone, LossConfig()).logits
    assert gap(forward(model, packed, LossConfig()).logits, expected, places) < ROUNDING
    leaks = model(packed["input_ids"], use_cache=False).logits
    assert gap(leaks, expected, places) > 1000 * ROUNDING


@pytest.mark.parametrize("on_integers", [False, True])
@torch.no_grad()
def test_one_bit_layers_keep_documents_apart_too(on_integers: bool) -> None:
    """Rounding may move an input across the border of two int8 codes: one step of 1/127 of the token's largest."""
    model = llama()
    convert(model, weight=WeightScheme(granularity="group", group_size=16, learnable_scale=True))
    model.train(not on_integers)
    packed, alone, places = batches()
    expected = forward(model, alone, LossConfig()).logits
    if on_integers:
        with on_kernels():
            found = forward(model, packed, LossConfig()).logits
    else:
        found = forward(model, packed, LossConfig()).logits
    leaks = gap(model(packed["input_ids"], use_cache=False).logits, expected, places)
    assert gap(found, expected, places) < float(expected.abs().max()) / 127 < leaks / 20


def test_every_loss_of_a_packed_batch_is_that_of_its_documents_alone() -> None:
    weights = LossConfig(kl=1.0, reverse_kl=0.5, ce=0.25, hidden=1.0, attention=1.0)
    teacher, student = llama(), llama()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    taps = RelationTaps(student, teacher, -1)
    packed, alone, _ = batches()
    sums, gradients = [], []
    for batch in (packed, alone):
        with torch.no_grad():
            told = forward(teacher, batch, weights)
        made = token_sums(forward(student, batch, weights), told, batch, weights, taps=taps)
        student.zero_grad()
        (made.logits + sum(made.others.values())).backward()
        sums.append(made.plain)
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert len(TERMS) == 5
    assert bool((sums[0] > 0).all())
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=0)  # float32 sums of some 50 tokens, as above
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3 * float(gradients[1].abs().max()))


def top_answers(folder: Path, top_k: int) -> TeacherCache:
    teacher = llama()
    return TeacherCache(folder, teacher, TopAnswers(teacher, top_k))


def test_a_kept_teacher_says_of_a_packed_document_what_it_says_of_it_alone(tmp_path: Path) -> None:
    packed, alone, places = batches()
    kept = [top_answers(tmp_path, VOCABULARY).target(batch) for batch in (packed, alone)]
    found, expected = (k.log_probabilities.exp().unflatten(0, (-1, SPACE)) for k in kept)
    assert gap(found.sort(dim=-1).values, expected.sort(dim=-1).values, places) < 2**-10  # stored as float16
    assert not bool(found[packed["real_tokens"] == 0].sub(1).any()), "padding is not kept"


def test_a_second_reader_of_packed_rows_needs_no_teacher(tmp_path: Path) -> None:
    packed = batches()[0]
    first, second = (top_answers(tmp_path, 8) for _ in range(2))
    made = first.target(packed)
    first.close()
    assert torch.equal(second.target(packed).log_probabilities, made.log_probabilities)
    assert (second.hits, second.misses) == (len(packed["input_ids"]), 0)


def test_a_model_is_tried_whether_it_keeps_documents_apart() -> None:
    tiny = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "n_layer": 2, "n_head": 4}
    tiny |= {"bos_token_id": 0, "eos_token_id": 0}
    assert keeps_documents_apart(llama())
    assert keeps_documents_apart(GPT2LMHeadModel(GPT2Config(n_embd=32, **tiny)))
    assert not keeps_documents_apart(BloomForCausalLM(BloomConfig(hidden_size=32, **tiny))), "it takes no positions"


def test_a_model_that_takes_positions_and_ignores_them_is_found_out() -> None:
    model = llama()
    original = model.forward
    model.forward = lambda input_ids, use_cache, position_ids=None: original(input_ids, use_cache=use_cache)
    assert not keeps_documents_apart(model)


def test_trying_a_model_leaves_it_in_its_mode() -> None:
    model = llama().train()
    keeps_documents_apart(model)
    assert model.training
