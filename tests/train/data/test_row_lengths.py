from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bitnet_train.train.data.row_lengths import RowLengths

lengths = st.builds(
    lambda rows, piece, times, short, share: RowLengths(rows, piece * times, piece if short else None, share),
    st.integers(1, 8),
    st.integers(2, 300),
    st.integers(1, 4),
    st.booleans(),
    st.floats(0.0, 1.0),
)


@given(given_lengths=lengths, max_tokens=st.integers(1, 10**6))
def test_steps_are_the_fewest_that_read_the_tokens(given_lengths: RowLengths, max_tokens: int) -> None:
    steps = given_lengths.steps(max_tokens)
    assert given_lengths.tokens(steps) >= max_tokens
    assert steps == 1 or given_lengths.tokens(steps - 1) < max_tokens


def test_whole_rows_are_batch_rows_times_their_tokens() -> None:
    whole = RowLengths(16, 256)
    assert (whole.steps(1_000_000), whole.steps(4096), whole.steps(4097)) == (245, 1, 2)
    assert (whole.short_steps(100), whole.tokens(100)) == (0, 409_600)


def test_short_steps_come_first_and_read_their_share() -> None:
    mixed = RowLengths(2, 512, 256, 0.8)
    assert mixed.short_steps(10) == 8
    assert mixed.tokens(10) == 2 * (8 * 256 + 2 * 512)
    assert mixed.steps(mixed.tokens(10)) == 10
