from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax

from bitnet_train.evaluate.likelihood import Pair, encode_pair, log_likelihoods

PAIRS = [
    Pair([1, 2, 3], [4, 5]),
    Pair([7], [8, 9, 10, 11]),
    Pair(list(range(20, 60)), [61]),
    Pair([5, 5, 5, 5], [6, 6, 6]),
]


@torch.no_grad()
def by_hand(model, pair: Pair) -> float:
    ids = torch.tensor([[*pair.context, *pair.continuation]])
    found = log_softmax(model(input_ids=ids).logits[0].double(), dim=-1)
    return sum(float(found[len(pair.context) + at - 1, token]) for at, token in enumerate(pair.continuation))


@pytest.mark.parametrize("max_rows", [1, 3, 16])
def test_likelihoods_are_those_of_each_row_alone_in_the_order_given(student, max_rows: int) -> None:
    found = log_likelihoods(student, PAIRS, 128, max_rows=max_rows)
    assert [one.log_prob for one in found] == pytest.approx([by_hand(student, pair) for pair in PAIRS], rel=1e-5)


def test_a_greedy_continuation_is_called_greedy_and_another_is_not(student) -> None:
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    written = student.generate(prompt, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    greedy = written[0, 5:].tolist()
    other = [*greedy[:-1], (greedy[-1] + 1) % 257]
    found = log_likelihoods(student, [Pair([3, 1, 4, 1, 5], greedy), Pair([3, 1, 4, 1, 5], other)], 128)
    assert [one.is_greedy for one in found] == [True, False]


def test_a_context_that_is_too_long_is_cut_on_the_left(student) -> None:
    long = Pair(list(range(1, 101)), [7, 8])
    cut = Pair(long.context[-15:], long.continuation)
    found = log_likelihoods(student, [long, cut], 16)
    assert found[0].log_prob == pytest.approx(found[1].log_prob, rel=1e-6)
    assert found[0].log_prob != pytest.approx(by_hand(student, long), rel=1e-4)


def test_white_space_at_the_end_of_a_context_is_scored_and_an_empty_context_is_bos(tokenizer) -> None:
    spaced = encode_pair(tokenizer, "ab ", "cd")
    assert tokenizer.decode(spaced.context) == "ab"
    assert tokenizer.decode(spaced.continuation) == " cd"
    assert encode_pair(tokenizer, "", "cd") == Pair([tokenizer.bos_token_id], tokenizer("cd")["input_ids"])
