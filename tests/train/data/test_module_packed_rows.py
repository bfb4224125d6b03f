"""Short documents share rows: each of them once, apart from the others, and in the same order when a fit goes on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig, BloomForCausalLM

from bitnet_train.errors import DataError
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.sampler import StepBatchSampler, order_of_pass
from bitnet_train.train.data.settings import DataConfig
from tests.fixtures.batches import Batch, SaveAfter, assert_same, fit, take, write_corpus
from tests.fixtures.data_examples import make_llama, make_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def make_packed(folder: Path, **values: Any) -> BitDataModule:
    rows = [{"text": f"{number} " * (3 + number % 9)} for number in range(60)]
    path = folder / "short.jsonl"
    if not path.exists():
        write_jsonl(path, rows)
    settings = {"context_tokens": 48, "min_tokens": 2, "validation_fraction": 0.3, **values}
    config = DataConfig(source="files", path=str(path), **settings)
    short = {"short_tokens": 24} if values.get("crop_padding") is False else {}
    return BitDataModule(config, make_tokenizer(), 4, 0, folder / "cache", make_llama(), **short)


def documents_of(batch: Batch) -> list[tuple[int, ...]]:
    """Return the documents of a packed batch, read off its positions."""
    found: list[tuple[int, ...]] = []
    for ids, positions, real in zip(batch["input_ids"], batch["position_ids"], batch["real_tokens"], strict=True):
        for token, position in zip(ids[real == 1].tolist(), positions[real == 1].tolist(), strict=True):
            found = [*found, ()] if position == 0 else found
            found[-1] = (*found[-1], token)
    return found


def test_short_documents_are_packed_and_a_pass_holds_each_of_them_once(tmp_path: Path) -> None:
    data, alone = make_packed(tmp_path), make_packed(tmp_path, packing="never")
    facts = data.describe()
    assert facts.layout.documents == alone.describe().train_rows > 2 * facts.train_rows
    assert facts.layout.padding_share < 0.1 < facts.layout.padding_share_alone
    seen = [document for number in range(facts.train_rows) for document in documents_of(take_rows(data, number))]
    expected = [
        tuple(ids[mask == 1].tolist())
        for number in range(alone.describe().train_rows)
        for batch in [take_rows(alone, number)]
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert sorted(seen) == sorted(expected)


def take_rows(data: BitDataModule, row: int) -> Batch:
    """Return the batch that holds one row of the order of the first pass."""
    batch = next(islice(data.train_dataloader(), row // data.batch_rows, None))
    return {name: values[row % data.batch_rows : row % data.batch_rows + 1] for name, values in batch.items()}


def test_a_packed_batch_trains_the_same_labels_as_its_documents_alone(tmp_path: Path) -> None:
    data = make_packed(tmp_path, crop_padding=False)
    rows = data.describe().train_rows
    labels = sum(int((take_rows(data, number)["labels"] != -100).sum()) for number in range(rows))
    assert labels == data.describe().train.trained_tokens
    batch = take(data, 1)[0]
    assert bool((batch["labels"][batch["position_ids"] == 0] == -100).all())
    assert bool((batch["labels"][batch["real_tokens"] == 0] == -100).all())


def test_what_is_held_out_and_what_a_start_looks_at_is_not_packed(tmp_path: Path) -> None:
    data, alone = make_packed(tmp_path), make_packed(tmp_path, packing="never")
    assert_same([data.validation_rows()], [alone.validation_rows()])
    looked_at = data.some_training_rows(7)
    assert set(looked_at) == {"input_ids", "labels", "attention_mask"}
    assert len(looked_at["input_ids"]) == 7
    last = order_of_pass(data.describe().train_rows, 0, 0)[-1]
    row = next(n for n in range(999) if StepBatchSampler(data.describe().train_rows, 1, 0).batch(n) == [last])
    fitted = {
        tuple(ids[mask == 1].tolist())
        for ids, mask in zip(*(looked_at[n] for n in ("input_ids", "attention_mask")), strict=True)
    }
    assert fitted >= set(documents_of(take_rows(data, row))[:1])


@pytest.mark.slow
@pytest.mark.parametrize("saved_after", [0, 2, 4])
def test_a_fit_on_packed_rows_resumes_to_exactly_the_batches_that_were_left(saved_after: int, tmp_path: Path) -> None:
    whole = fit(make_packed(tmp_path), 9)
    fit(make_packed(tmp_path), 6, SaveAfter(saved_after, tmp_path / "saved.ckpt"))
    resumed = fit(make_packed(tmp_path), 9, ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert "position_ids" in whole[0]
    assert_same(resumed, whole[saved_after + 1 :])


def test_pieces_of_packed_rows_begin_anew_and_keep_documents_apart(tmp_path: Path) -> None:
    data = make_packed(tmp_path, crop_padding=False)
    data.short_steps = 3
    batch = take(data, 1)[0]
    assert batch["input_ids"].shape == (4, 24)
    assert bool((batch["position_ids"][:, 0] == 0).all())
    assert int((batch["position_ids"] == 0).sum()) > 4
    assert bool((batch["labels"][batch["position_ids"] == 0] == -100).all())


def test_a_model_that_would_mix_documents_keeps_a_row_for_each(tmp_path: Path) -> None:
    bloom: Any = BloomForCausalLM(
        BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    )
    data, insisting = make_packed(tmp_path), make_packed(tmp_path, packing="always")
    data.teacher = insisting.teacher = bloom
    assert set(take(data, 1)[0]) == {"input_ids", "labels", "attention_mask"}
    assert data.describe().layout.why_not == "BloomForCausalLM would mix the documents of a row"
    with pytest.raises(DataError, match=r"`data\.packing=always`: BloomForCausalLM lets .* Set `data\.packing=never`"):
        insisting.setup()


def test_full_rows_are_not_packed(corpus: Path, tmp_path: Path) -> None:
    config = DataConfig(source="files", path=str(corpus), context_tokens=16)
    data = BitDataModule(config, make_tokenizer(), 4, 0, tmp_path, make_llama())
    assert (data.is_packed, data.describe().layout.why_not) == (False, "documents do not fit together")
