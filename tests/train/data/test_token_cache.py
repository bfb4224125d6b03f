from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bitnet_train.train.data.chunk import TokenRows
from bitnet_train.train.data.token_cache import (
    cache_path,
    digest,
    load_rows,
    save_rows,
    tokenizer_digest,
)
from tests.fixtures.data_examples import CHATML, make_tokenizer

KEY, FACTS = digest("some content"), {"train": {"rows": 3}}


def some_rows(num_rows: int, seed: int) -> TokenRows:
    rng = np.random.default_rng(seed)
    return TokenRows(
        rng.integers(0, 400, (num_rows, 8), dtype=np.int32),
        rng.integers(0, 2, (num_rows, 8)).astype(bool),
        rng.integers(1, 9, num_rows, dtype=np.int32),
    )


ROWS = {"train": some_rows(3, seed=0), "validation": some_rows(0, seed=1)}


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    save_rows(tmp_path, KEY, ROWS, FACTS)
    found = load_rows(tmp_path, KEY)
    assert found is not None
    rows, facts = found
    assert facts == FACTS
    for split, expected in ROWS.items():
        for name in ("input_ids", "trained", "lengths"):
            before, after = getattr(expected, name), getattr(rows[split], name)
            assert before.dtype == after.dtype
            assert np.array_equal(before, after)


def test_there_is_nothing_before_it_is_written_and_nothing_under_another_key(tmp_path: Path) -> None:
    assert load_rows(tmp_path, KEY) is None
    save_rows(tmp_path, KEY, ROWS, FACTS)
    assert load_rows(tmp_path, digest("other content")) is None


def test_nothing_but_the_cache_is_left_in_the_folder(tmp_path: Path) -> None:
    save_rows(tmp_path, KEY, ROWS, FACTS)
    assert list(tmp_path.iterdir()) == [cache_path(tmp_path, KEY)]


@pytest.mark.slow
def test_any_flipped_byte_and_any_truncation_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_rows(tmp_path, KEY, ROWS, FACTS)
    path = cache_path(tmp_path, KEY)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        assert load_rows(tmp_path, KEY) is None, f"byte {position}"
        caplog.clear()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert load_rows(tmp_path, KEY) is None, f"{length} bytes"
    assert "is damaged" in caplog.text
    assert str(path) in caplog.text


def test_a_file_renamed_to_another_key_is_not_believed(tmp_path: Path) -> None:
    save_rows(tmp_path, KEY, ROWS, FACTS)
    other = digest("other content")
    cache_path(tmp_path, KEY).rename(cache_path(tmp_path, other))
    assert load_rows(tmp_path, other) is None


def test_a_cache_that_cannot_be_written_is_reported_and_not_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").write_text("")
    with caplog.at_level(logging.WARNING):
        save_rows(tmp_path / "a file" / "folder", KEY, ROWS, FACTS)
    assert "cannot be written: Not a directory" in caplog.text


def test_the_tokenizer_digest_follows_what_decides_the_ids() -> None:
    plain, other_template, no_bos = make_tokenizer(), make_tokenizer(CHATML + " "), make_tokenizer(bos=False)
    larger = make_tokenizer()
    larger.add_tokens(["<new>"])
    assert len({tokenizer_digest(t) for t in (plain, other_template, no_bos, larger)}) == 4


def test_the_tokenizer_digest_ignores_how_the_tokenizer_was_last_called() -> None:
    fresh, used = make_tokenizer(), make_tokenizer()
    used(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert used.backend_tokenizer.to_str() != fresh.backend_tokenizer.to_str()
    assert tokenizer_digest(used) == tokenizer_digest(fresh)
