from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.train.data.module import BitDataModule, load_or_tokenise
from bitnet_train.train.data.sampler import StepBatchSampler, order_of_pass
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.summary import data_lines
from tests.fixtures.data_examples import CHATML, DOCUMENTS, make_llama, make_tokenizer, shared_data, write_jsonl

Batch = dict[str, Tensor]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [{"text": f"{document}\n# {number}"} for number in range(8) for document in DOCUMENTS]
    return write_jsonl(folder / "rows.jsonl", rows)


def make_data(corpus: Path, cache: Path, *, batch_rows: int = 5, seed: int = 0, **values: Any) -> BitDataModule:
    config = DataConfig(**{"source": "files", "path": str(corpus), "context_tokens": 48, **values})
    return BitDataModule(config, make_tokenizer(), batch_rows, seed, cache)


def take(data: BitDataModule, num_batches: int) -> list[Batch]:
    return list(islice(data.train_dataloader(), num_batches))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


class Recorder(LightningModule):
    """Trains one weight with as many optimisers as asked and remembers the batches it was given."""

    def __init__(self, num_optimizers: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weights = torch.nn.ParameterList([torch.zeros(1) for _ in range(num_optimizers)])
        self.seen: list[Batch] = []

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append({name: tensor.clone() for name, tensor in batch.items()})
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch["labels"].shape == batch["input_ids"].shape

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([weight], lr=0.1) for weight in self.weights]


class SaveAfter(Callback):
    def __init__(self, batch_idx: int, path: Path) -> None:
        self.batch_idx, self.path = batch_idx, path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if args[-1] == self.batch_idx:
            trainer.save_checkpoint(self.path)


def fit(
    data: BitDataModule, num_batches: int, *callbacks: Callback, num_optimizers: int = 1, **values: Any
) -> list[Batch]:
    module = Recorder(num_optimizers)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=num_batches * num_optimizers,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, data, **values)
    return module.seen


def test_a_batch_holds_the_rows_of_one_step(corpus: Path, tmp_path: Path) -> None:
    data = make_data(corpus, tmp_path, crop_padding=False)
    for batch in take(data, 3):
        assert set(batch) == {"input_ids", "labels", "attention_mask"}
        for tensor in batch.values():
            assert (tensor.dtype, tensor.shape) == (torch.int64, (5, 48))
        labelled = batch["labels"] != -100
        assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])
        assert bool((batch["attention_mask"][labelled] == 1).all())


def test_batches_are_a_function_of_the_seed(corpus: Path, tmp_path: Path) -> None:
    first, again, other = (take(make_data(corpus, tmp_path, seed=seed), 30) for seed in (0, 0, 1))
    assert_same(first, again)
    assert any(not torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, other, strict=True))


def test_the_saved_position_is_where_the_next_loader_begins(corpus: Path, tmp_path: Path) -> None:
    data, resumed = make_data(corpus, tmp_path), make_data(corpus, tmp_path)
    resumed.load_state_dict({"next_batch": 13})
    assert resumed.state_dict() == {"next_batch": 13}
    assert_same(take(resumed, 7), take(data, 20)[13:])


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


def test_the_second_time_comes_from_the_cache(corpus: Path, tmp_path: Path) -> None:
    first = make_data(corpus, tmp_path)
    facts = first.describe()
    (cache,) = tmp_path.glob("tokens-*.safetensors")
    written = cache.stat().st_mtime_ns
    second = make_data(corpus, tmp_path)
    assert second.describe() == facts
    assert_same(take(second, 3), take(first, 3))
    assert cache.stat().st_mtime_ns == written


def test_a_damaged_cache_is_made_again_with_a_message(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = take(make_data(corpus, tmp_path), 3)
    (cache,) = tmp_path.glob("tokens-*.safetensors")
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        assert_same(take(make_data(corpus, tmp_path), 3), expected)
    assert "damaged" in caplog.text
    caplog.clear()
    assert_same(take(make_data(corpus, tmp_path), 3), expected)
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("changed", [{"context_tokens": 40}, {"min_tokens": 20}, {"validation_fraction": 0.5}])
def test_what_changes_the_rows_changes_the_key(changed: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    keys = {make_data(corpus, tmp_path, **values).describe().cache_key for values in ({}, changed)}
    assert len(keys) == 2


def test_what_does_not_change_the_rows_keeps_the_key(corpus: Path, tmp_path: Path) -> None:
    config = DataConfig(source="files", path=str(corpus), max_train_rows=3, crop_padding=False, context_tokens=48)
    other = BitDataModule(config, make_tokenizer(), batch_rows=9, seed=7, cache_dir=tmp_path)
    assert other.describe().cache_key == make_data(corpus, tmp_path).describe().cache_key


def test_another_chat_template_is_another_key(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "qa.jsonl", [{"question": f"q{i}", "answer": "a"} for i in range(9)])
    config = DataConfig(source="files", path=str(path), context_tokens=48)
    tokenizers = [make_tokenizer(), make_tokenizer(None), make_tokenizer("!" + CHATML)]
    keys = {BitDataModule(config, t, 2, 0, tmp_path).describe().cache_key for t in tokenizers}
    assert len(keys) == 3


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


def test_what_is_not_read_is_counted_also_from_the_cache(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q", "name": "Bo"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": [*turns, {"role": "user", "content": str(i)}, turns[1]], "id": i} for i in range(20)]
    path = write_jsonl(tmp_path / "chats.jsonl", rows)
    for _ in range(2):
        facts = make_data(path, tmp_path, validation_fraction=0.3).describe()
        assert facts.unused_fields == {"id": 20}
        assert facts.left_out == {"messages: their `name` is not read by the chat template": 20}
        assert data_lines(facts)[-2:] == [
            "Fields not read: id (20 rows).",
            "Of the data, 20 messages: their `name` is not read by the chat template.",
        ]


def test_a_variable_of_the_chat_template_is_another_key_and_decides_the_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", [{"question": str(i), "answer": "a"} for i in range(20)])
    loud = "{{ 'LOUD ' if loud }}" + CHATML
    config = DataConfig(source="files", path=str(path), validation_fraction=0.3)
    seen = []
    for variables in ({}, {"loud": True}):
        chosen = replace(config, chat_template_variables=variables)
        rows, facts = load_or_tokenise(chosen, make_tokenizer(loud), tmp_path / "cache", None)
        text = make_tokenizer().decode(rows["train"].input_ids[0])
        seen.append((facts["cache_key"], str(text).startswith("LOUD ")))
    assert [is_loud for _, is_loud in seen] == [False, True]
    assert seen[0][0] != seen[1][0]
