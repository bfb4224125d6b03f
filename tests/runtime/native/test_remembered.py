from __future__ import annotations

import pytest

from bitnet_train.runtime.native.remembered import common_length


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [([], [1], 0), ([1, 2, 3], [1, 2, 3], 3), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([4], [5], 0)],
)
def test_the_common_beginning_is_counted(first, second, length):
    assert common_length(first, second) == common_length(second, first) == length
