from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_train.train.data.sampler import ShortRows, StepBatchSampler, order_of_pass

sizes = st.integers(1, 40)


def first(sampler: StepBatchSampler, num_batches: int) -> list[list[int]]:
    return list(islice(sampler, num_batches))


@settings(deadline=None)
@given(num_rows=sizes, batch_rows=sizes, seed=st.integers(0, 2**31))
def test_each_pass_holds_every_row_once(num_rows: int, batch_rows: int, seed: int) -> None:
    num_passes = 3
    num_batches = -(-num_passes * num_rows // batch_rows)
    stream = [row for batch in first(StepBatchSampler(num_rows, batch_rows, seed), num_batches) for row in batch]
    for number in range(num_passes):
        assert sorted(stream[number * num_rows : (number + 1) * num_rows]) == list(range(num_rows))


@pytest.mark.slow
@settings(deadline=None)
@given(num_rows=sizes, batch_rows=sizes, start=st.integers(0, 100))
def test_starting_at_a_step_gives_the_same_batches_as_having_come_there(
    num_rows: int, batch_rows: int, start: int
) -> None:
    whole = first(StepBatchSampler(num_rows, batch_rows, seed=5), start + 4)
    assert first(StepBatchSampler(num_rows, batch_rows, seed=5, start=start), 4) == whole[start:]


@settings(deadline=None)
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


counts = st.lists(st.integers(0, 4), min_size=1, max_size=12).filter(any)


def made_short(pieces: list[int], batch_rows: int, num_steps: int) -> StepBatchSampler:
    return StepBatchSampler(len(pieces), batch_rows, seed=3, short=ShortRows(np.array(pieces), num_steps))


@pytest.mark.slow
@settings(deadline=None)
@given(pieces=counts, batch_rows=st.integers(1, 6))
def test_short_steps_read_each_piece_once_a_pass_in_the_order_of_the_rows(pieces: list[int], batch_rows: int) -> None:
    total = sum(pieces)
    sampler = made_short(pieces, batch_rows, num_steps=2 * total)
    numbers = [number - len(pieces) for batch in first(sampler, 2 * total) for number in batch][:total]
    assert sorted(numbers) == list(range(total))
    row_of = np.repeat(np.arange(len(pieces)), pieces)
    rows = list(dict.fromkeys(row_of[numbers].tolist()))
    order = order_of_pass(len(pieces), 3, 0).tolist()
    assert rows == [row for row in order if pieces[row]]
    for row in rows:
        own = [number for number in numbers if row_of[number] == row]
        assert own == list(range(own[0], own[0] + pieces[row]))


@pytest.mark.slow
@settings(deadline=None)
@given(pieces=counts, batch_rows=st.integers(1, 6), num_steps=st.integers(0, 20))
def test_whole_rows_begin_with_the_first_of_which_no_piece_was_read(
    pieces: list[int], batch_rows: int, num_steps: int
) -> None:
    sampler, num_rows = made_short(pieces, batch_rows, num_steps), len(pieces)
    batches = first(sampler, num_steps + 1)
    assert all(number >= num_rows for batch in batches[:num_steps] for number in batch)
    passes, left = divmod(num_steps * batch_rows, sum(pieces))
    order = [row for number in range(passes, passes + 9) for row in order_of_pass(num_rows, 3, number).tolist()]
    row_of = np.repeat(np.arange(num_rows), pieces)
    last = batches[num_steps - 1][-1] - num_rows if left else None
    begun = order.index(row_of[last]) + 1 if last is not None else 0
    assert batches[num_steps] == order[begun : begun + batch_rows]


def test_starting_among_or_after_short_steps_gives_the_same_batches() -> None:
    short = ShortRows(np.array([2, 0, 1, 3]), 5)
    whole = first(StepBatchSampler(4, 2, seed=1, short=short), 12)
    for start in (2, 5, 8):
        assert first(StepBatchSampler(4, 2, seed=1, short=short, start=start), 12 - start) == whole[start:]


def test_ranks_share_the_pieces_of_a_step() -> None:
    short = ShortRows(np.full(6, 2), 3)
    whole = StepBatchSampler(6, 4, seed=1, short=short)
    ranks = [StepBatchSampler(6, 4, seed=1, short=short, rank=rank, world=2) for rank in range(2)]
    for index in range(5):
        assert [row for rank in ranks for row in rank.batch(index)] == whole.batch(index)
