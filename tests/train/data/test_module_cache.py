"""Rows are read once: what comes from the cache is what was read, and what changes the rows changes their key."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.train.data.module import BitDataModule, load_or_tokenise
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.summary import data_lines
from tests.fixtures.batches import assert_same, make_data, take, write_corpus
from tests.fixtures.data_examples import CHATML, make_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


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
