"""What a data module reads, describes, hands out and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.settings import DataConfig
from tests.fixtures.batches import make_data, take, write_corpus
from tests.fixtures.data_examples import DOCUMENTS, make_llama, make_tokenizer, shared_data, write_jsonl


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_batch_holds_the_rows_of_one_step(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path, crop_padding=False)
    for batch in take(data, 3):
        assert set(batch) == {"input_ids", "labels", "attention_mask"}
        for tensor in batch.values():
            assert (tensor.dtype, tensor.shape) == (torch.int64, (5, 48))
        labelled = batch["labels"] != -100
        assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])
        assert bool((batch["attention_mask"][labelled] == 1).all())


def test_the_validation_loader_and_rows_hold_the_same_rows_in_order(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path, crop_padding=False, validation_fraction=0.3)
    batches, whole = list(data.val_dataloader()), data.validation_rows()
    assert len(batches) > 1
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([batch[name] for batch in batches]), tensor)


def test_without_a_validation_split_there_is_no_validation_batch(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path, validation_fraction=0)
    assert list(data.val_dataloader()) == []
    assert data.validation_rows()["input_ids"].shape == (0, 48)


def test_a_pass_and_the_validation_rows_hold_every_document_once(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{number} " * 10} for number in range(40)])
    data = make_data(path, tmp_path, validation_fraction=0.3, crop_padding=False, batch_rows=1)
    trained = [batch["input_ids"][0].tolist() for batch in take(data, data.describe().train_rows)]
    held_out = data.validation_rows()["input_ids"].tolist()
    assert len(trained) > 5 < len(held_out)
    assert len({tuple(row) for row in trained + held_out}) == len(trained) + len(held_out) == 40


@pytest.mark.parametrize("num_rows", [1, 5, 99])
def test_a_start_is_fitted_to_the_rows_that_the_first_pass_reads_last(num_rows: int, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{number} " * 10} for number in range(40)])
    data = make_data(path, tmp_path, seed=3, crop_padding=False, batch_rows=1)
    order = [tuple(batch["input_ids"][0].tolist()) for batch in take(data, data.describe().train_rows)]
    fitted = [tuple(row) for row in data.some_training_rows(num_rows)["input_ids"].tolist()]
    width = len(fitted[0])  # the columns that are padding in all of them are cut off
    assert set(fitted) == {row[:width] for row in order[-num_rows:]}
    assert len(fitted) == min(num_rows, len(order))


def test_limits_keep_a_fixed_subset_of_the_rows(corpus: Path, tmp_path: Path) -> None:
    def limited(seed: int) -> BitDataModule:
        return make_data(corpus, tmp_path, seed=seed, max_train_rows=6, max_validation_rows=2, crop_padding=False)

    facts = limited(0).describe()
    assert (facts.train_rows, facts.validation_rows) == (6, 2)
    assert facts.train.rows > 6
    seen = [{tuple(row) for batch in take(limited(seed), 6) for row in batch["input_ids"].tolist()} for seed in (0, 1)]
    assert seen[0] == seen[1]


def test_the_description_adds_up(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path, validation_fraction=0.3, crop_padding=False)
    facts = data.describe()
    rows = data.validation_rows()
    assert facts.train.documents + facts.validation.documents == 8 * len(DOCUMENTS)
    assert facts.validation.tokens == int(rows["attention_mask"].sum())
    assert facts.validation.trained_tokens == int((rows["labels"] != -100).sum())
    assert facts.validation.padding_share == pytest.approx(1 - rows["attention_mask"].float().mean().item(), abs=1e-5)
    assert (facts.source, facts.kind, facts.context_tokens) == ("files", "text", 48)


def test_the_first_sample_shows_what_is_trained(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "qa.jsonl", [{"question": "what?", "answer": "that."}] * 3)
    config = DataConfig(source="files", path=str(path), context_tokens=48, validation_fraction=0)
    data = BitDataModule(config, make_tokenizer(), batch_rows=2, seed=0, cache_dir=tmp_path)
    assert data.first_sample() == [
        ("<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n", False),
        ("that.<|im_end|>", True),
        ("\n", False),
    ]


def test_a_context_longer_than_the_tokenizer_or_the_model_allows_is_an_error(corpus: Path, tmp_path: Path) -> None:
    config = DataConfig(source="files", path=str(corpus), context_tokens=65)
    short = make_tokenizer()
    short.model_max_length = 64
    with pytest.raises(DataError, match=r"`data\.context_tokens=65` exceeds the tokenizer's model_max_length, 64\."):
        BitDataModule(config, short, 4, 0, tmp_path)
    with pytest.raises(DataError, match=r"`data\.context_tokens=65` exceeds the model's max_position_embeddings, 64\."):
        BitDataModule(config, make_tokenizer(), 4, 0, tmp_path, teacher=make_llama(positions=64))


def test_a_tokenizer_that_does_not_belong_to_the_model_is_an_error(corpus: Path, tmp_path: Path) -> None:
    config = DataConfig(source="files", path=str(corpus), context_tokens=48)
    data = BitDataModule(config, make_tokenizer(), 4, 0, tmp_path, teacher=make_llama(vocabulary=100))
    with pytest.raises(DataError, match=r"gives token \d+, but the model knows only 100"):
        data.setup()


def test_a_padding_token_beyond_the_embedding_is_replaced_by_one_that_can_be_looked_up(
    corpus: Path, tmp_path: Path
) -> None:
    beyond, config = make_tokenizer(), DataConfig(source="files", path=str(corpus), context_tokens=48)
    beyond.add_special_tokens({"pad_token": "<pad>"})
    assert beyond.pad_token_id == 362
    found = BitDataModule(config, beyond, 4, 0, tmp_path / "one", teacher=make_llama(vocabulary=362)).validation_rows()
    usual = BitDataModule(config, make_tokenizer(), 4, 0, tmp_path / "other").validation_rows()
    assert int(found["input_ids"].max()) < 362
    assert not found["attention_mask"].all()
    for name in ("labels", "attention_mask"):
        assert torch.equal(found[name], usual[name])
    real = found["attention_mask"].bool()
    assert torch.equal(found["input_ids"][real], usual["input_ids"][real])


def test_the_context_of_a_model_that_states_no_limit_is_free(corpus: Path, tmp_path: Path) -> None:
    bloom = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=32, n_layer=1, n_head=2))
    config = DataConfig(source="files", path=str(corpus), context_tokens=4096)
    BitDataModule(config, make_tokenizer(), 4, 0, tmp_path, teacher=bloom)


@pytest.mark.parametrize(("batch_rows", "seed"), [(0, 0), (4, -1)])
def test_no_rows_or_a_negative_seed_is_a_configuration_error(
    batch_rows: int, seed: int, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"batch rows \({batch_rows}\).*seed \({seed}\)"):
        make_data(corpus, tmp_path, batch_rows=batch_rows, seed=seed)


def test_real_text_becomes_rows_with_little_padding(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(shared_data("tinyshakespeare/input.txt").read_text()[:200_000])
    config = DataConfig(source="files", path=str(tmp_path / "play.txt"), context_tokens=256)
    facts = BitDataModule(config, make_tokenizer(), 8, 0, tmp_path).describe()
    assert facts.train.padding_share < 0.01
    assert 0.03 < facts.validation.tokens / facts.train.tokens < 0.08
