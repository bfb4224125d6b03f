from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitnet_train.train.sampler import StepBatchSampler

sizes = st.integers(1, 40)


def first(sampler: StepBatchSampler, num_batches: int) -> list[list[int]]:
    return list(islice(sampler, num_batches))


@given(num_rows=sizes, batch_rows=sizes, seed=st.integers(0, 2**31))
def test_each_pass_holds_every_row_once(num_rows: int, batch_rows: int, seed: int) -> None:
    num_passes = 3
    num_batches = -(-num_passes * num_rows // batch_rows)
    stream = [row for batch in first(StepBatchSampler(num_rows, batch_rows, seed), num_batches) for row in batch]
    for number in range(num_passes):
        assert sorted(stream[number * num_rows : (number + 1) * num_rows]) == list(range(num_rows))


@given(num_rows=sizes, batch_rows=sizes, start=st.integers(0, 100))
def test_starting_at_a_step_gives_the_same_batches_as_having_come_there(
    num_rows: int, batch_rows: int, start: int
) -> None:
    whole = first(StepBatchSampler(num_rows, batch_rows, seed=5), start + 4)
    assert first(StepBatchSampler(num_rows, batch_rows, seed=5, start=start), 4) == whole[start:]


@given(num_rows=sizes, share=st.integers(1, 8), world=st.integers(1, 5))
def test_the_shares_of_all_ranks_make_up_the_whole_batch(num_rows: int, share: int, world: int) -> None:
    whole = StepBatchSampler(num_rows, share * world, seed=1)
    ranks = [StepBatchSampler(num_rows, share * world, seed=1, rank=rank, world=world) for rank in range(world)]
    for index in (0, 1, 7):
        shares = [rank.batch(index) for rank in ranks]
        assert {len(part) for part in shares} == {share}
        assert [row for part in shares for row in part] == whole.batch(index)


def test_a_batch_may_be_asked_for_in_any_order() -> None:
    sampler = StepBatchSampler(7, 3, seed=0)
    forward = [sampler.batch(i) for i in range(12)]
    assert [sampler.batch(i) for i in reversed(range(12))] == forward[::-1]


def test_seeds_and_passes_give_different_orders() -> None:
    orders = [StepBatchSampler(50, 50, seed).batch(index) for seed in (0, 1) for index in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_of_a_seed_is_fixed_for_good() -> None:
    assert StepBatchSampler(6, 6, seed=0).batch(0) == [3, 2, 5, 4, 0, 1]


def test_the_sampler_has_no_length_because_it_never_ends() -> None:
    with pytest.raises(TypeError):
        len(StepBatchSampler(3, 2, seed=0))


def test_rows_that_ranks_cannot_share_equally_are_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="5 rows a step cannot be shared by 2 ranks"):
        StepBatchSampler(10, 5, seed=0, world=2)
