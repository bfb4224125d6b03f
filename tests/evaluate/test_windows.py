from __future__ import annotations

import pytest
import torch

from bitnet_train.errors import DataError
from bitnet_train.evaluate.windows import windows

TEXT = "Windows side by side. " * 20


def test_windows_without_overlap_lie_side_by_side_and_drop_the_incomplete_one(tokenizer) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    rows = windows(TEXT, tokenizer, 50, overlap=False)
    assert len(ids) % 50 != 0
    assert rows["input_ids"].flatten().tolist() == ids[: len(ids) // 50 * 50]
    assert torch.equal(rows["labels"], rows["input_ids"])
    assert bool(rows["attention_mask"].all())


def test_windows_without_overlap_can_be_limited(tokenizer) -> None:
    assert windows(TEXT, tokenizer, 50, overlap=False, max_windows=2)["input_ids"].shape == (2, 50)


def test_a_text_shorter_than_a_window_is_refused_without_overlap_and_padded_with(tokenizer) -> None:
    with pytest.raises(DataError, match=r"fills no window of 2048.*`evaluate.window_tokens`"):
        windows(TEXT, tokenizer, 2048, overlap=False)
    assert windows(TEXT, tokenizer, 2048)["input_ids"].shape == (1, 2048)
