from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.given_loader import GivenLoader


def taken(batches: object, num_batches: int, step: int = 0) -> list[object]:
    data = GivenLoader(batches)  # pyright: ignore[reportArgumentType]
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(step=step))  # pyright: ignore
    return list(islice(data.train_dataloader(), num_batches))


def test_a_loader_is_gone_round_as_often_as_the_steps_need() -> None:
    assert taken("abc", 7) == list("abcabca")


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_goes_on_leaves_out_what_it_has_read(step: int) -> None:
    assert taken("abc", 4, step) == taken("abc", 4 + step)[step:]


def test_an_empty_loader_and_an_iterator_that_is_used_up_are_said() -> None:
    with pytest.raises(DataError, match=r"The loader has no batch\. Give it rows"):
        taken([], 1)
    with pytest.raises(DataError, match="used up after one pass"):
        taken(iter("abc"), 4)


def test_held_out_batches_are_those_given() -> None:
    assert GivenLoader("abc", "de").val_dataloader() == "de"
