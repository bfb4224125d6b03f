from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitnet_train.train.data.epochs import Epochs
from bitnet_train.train.data.row_lengths import RowLengths
from bitnet_train.train.data.sampler import ShortRows, StepBatchSampler

sizes = st.integers(1, 25)


def times_read(sampler: StepBatchSampler, steps: int) -> list[int]:
    """Return how often each row was read whole."""
    read = [row for step in range(steps) for row in sampler.batch(step)]
    return [read.count(row) for row in range(sampler.num_rows)]


@given(num_rows=sizes, batch_rows=sizes, max_epochs=st.integers(1, 4))
def test_whole_epochs_read_every_row_so_often_in_the_fewest_steps(
    num_rows: int, batch_rows: int, max_epochs: int
) -> None:
    steps = Epochs(num_rows, batch_rows, 0).steps(max_epochs, RowLengths(batch_rows, 8))
    sampler = StepBatchSampler(num_rows, batch_rows, 0)
    assert min(times_read(sampler, steps)) == max_epochs or num_rows < batch_rows
    assert min(times_read(sampler, steps)) >= max_epochs
    assert steps == 1 or min(times_read(sampler, steps - 1)) < max_epochs


@pytest.mark.parametrize(("max_epochs", "steps"), [(0.5, 5), (1, 10), (3, 30), (0.1, 1), (0.7, 7), (0.01, 1)])
def test_epochs_are_taken_as_they_are_written(max_epochs: float, steps: int) -> None:
    assert Epochs(30, 3, 0).steps(max_epochs, RowLengths(3, 8)) == steps
    assert Epochs(30, 3, 0).read(steps) == max(max_epochs, 0.1)


@given(
    pieces=st.lists(st.integers(0, 4), min_size=1, max_size=20).filter(any),
    batch_rows=st.integers(1, 8),
    share=st.floats(0.0, 1.0),
    max_epochs=st.sampled_from([0.3, 0.5, 1, 2.5]),
)
def test_rows_of_which_pieces_were_read_count_once(
    pieces: list[int], batch_rows: int, share: float, max_epochs: float
) -> None:
    pieces_R, lengths = np.array(pieces), RowLengths(batch_rows, 8, 4, share)
    epochs = Epochs(len(pieces), batch_rows, 3, pieces_R)
    steps = epochs.steps(max_epochs, lengths)
    assert epochs.read(steps, lengths.short_steps(steps)) >= max_epochs
    assert steps == 1 or epochs.read(steps - 1, lengths.short_steps(steps - 1)) < max_epochs


def test_pieces_stretch_an_epoch() -> None:
    epochs = Epochs(8, 2, 0, np.full(8, 4))
    assert epochs.steps(1, RowLengths(2, 8, 2, 1.0)) == 15, "a row counts from its first piece on"
    assert epochs.steps(1, RowLengths(2, 8, 2, 0.0)) == 4
    sampler = StepBatchSampler(8, 2, 0, short=ShortRows(np.full(8, 4), 4))
    assert [sampler.rows_read(step) for step in range(7)] == [0, 1, 1, 2, 2, 4, 6]
