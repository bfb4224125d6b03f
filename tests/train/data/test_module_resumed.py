"""A fit that goes on sees exactly the batches that were left, among short rows too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from bitnet_train.errors import DataError
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.settings import DataConfig
from tests.fixtures.batches import Batch, SaveAfter, assert_same, fit, make_data, take, write_corpus
from tests.fixtures.data_examples import make_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_batches_are_a_function_of_the_seed(corpus: Path, tmp_path: Path) -> None:
    first, again, other = (take(make_data(corpus, tmp_path, seed=seed), 30) for seed in (0, 0, 1))
    assert_same(first, again)
    assert any(not torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, other, strict=True))


def test_the_saved_position_is_where_the_next_loader_begins(corpus: Path, tmp_path: Path) -> None:
    data, resumed = make_data(corpus, tmp_path), make_data(corpus, tmp_path)
    resumed.load_state_dict({"next_batch": 13})
    assert resumed.state_dict() == {"next_batch": 13}
    assert_same(take(resumed, 7), take(data, 20)[13:])


@pytest.mark.slow
@pytest.mark.parametrize("num_optimizers", [1, 2])
@pytest.mark.parametrize("saved_after", [0, 2, 4])
def test_a_fit_resumed_from_a_checkpoint_sees_exactly_the_batches_that_were_left(
    corpus: Path, tmp_path: Path, saved_after: int, num_optimizers: int
) -> None:
    def run(num_batches: int, *callbacks: Callback, **values: Any) -> list[Batch]:
        data = make_data(corpus, tmp_path / "cache")
        return fit(data, num_batches, *callbacks, num_optimizers=num_optimizers, **values)

    whole = run(9)
    cut = run(6, SaveAfter(saved_after, tmp_path / "saved.ckpt"))
    resumed = run(9, ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert len(whole) == 9
    assert_same(cut, whole[:6])
    assert_same(resumed, whole[saved_after + 1 :])


def test_a_run_resumed_twice_still_sees_every_batch_once(corpus: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole = fit(make_data(corpus, tmp_path), 9)
    fit(make_data(corpus, tmp_path), 3, SaveAfter(2, first))
    middle = fit(make_data(corpus, tmp_path), 6, SaveAfter(5, second), ckpt_path=first, weights_only=True)
    last = fit(make_data(corpus, tmp_path), 9, ckpt_path=second, weights_only=True)
    assert_same(middle + last, whole[3:])


def test_a_second_fit_of_the_same_module_goes_on_where_the_first_ended(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path)
    first = fit(data, 4)
    assert data.state_dict() == {"next_batch": 4}
    assert_same(first + fit(data, 3), take(make_data(corpus, tmp_path), 7))


def made_short(corpus: Path, cache: Path, **values: Any) -> BitDataModule:
    config = DataConfig(source="files", path=str(corpus), context_tokens=48, **values)
    data = BitDataModule(config, make_tokenizer(), 5, 0, cache, short_tokens=24)
    data.short_steps = 4
    return data


def test_the_first_steps_read_pieces_of_the_rows_and_the_others_go_on_behind_them(corpus: Path, tmp_path: Path) -> None:
    whole = [
        row.tolist() for batch in take(make_data(corpus, tmp_path, crop_padding=False), 9) for row in batch["input_ids"]
    ]
    batches = take(made_short(corpus, tmp_path, crop_padding=False), 6)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(5, 24)] * 4 + [(5, 48)] * 2
    assert all(bool((batch["labels"] != -100).any(dim=1).all()) for batch in batches)
    pieces = [row.tolist() for batch in batches[:4] for row in batch["input_ids"]]
    begun = 0
    while pieces:
        halves = [whole[begun][:24], whole[begun][24:]]
        pieces = pieces[2 if pieces[:2] == halves else 1 :] if pieces[0] == halves[0] else pytest.fail("another row")
        begun += 1
    assert [row.tolist() for row in batches[4]["input_ids"]] == whole[begun : begun + 5]


def test_a_fit_resumed_among_or_after_short_steps_sees_what_was_left(corpus: Path, tmp_path: Path) -> None:
    whole = fit(made_short(corpus, tmp_path), 8)
    for saved_after in (1, 5):
        path = tmp_path / f"{saved_after}.ckpt"
        fit(made_short(corpus, tmp_path), 6, SaveAfter(saved_after, path))
        resumed = fit(made_short(corpus, tmp_path), 8, ckpt_path=path, weights_only=True)
        assert_same(resumed, whole[saved_after + 1 :])


def test_pieces_without_a_trained_token_are_refused(corpus: Path, tmp_path: Path) -> None:
    data = made_short(corpus, tmp_path)
    data.short_tokens = 1
    for read in (data.train_dataloader, lambda: data.first_batch(short=True)):
        with pytest.raises(DataError, match=r"`trainer\.short_row_tokens=1` tokens has a trained token"):
            read()
