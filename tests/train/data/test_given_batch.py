from __future__ import annotations

import pytest
import torch
from transformers import BatchEncoding

from bitnet_train.errors import DataError
from bitnet_train.train.data.given_batch import read_batch

IDS = torch.tensor([[3, 4, 5], [6, 0, 0]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize("given", [IDS, [IDS], (IDS,), {"input_ids": IDS}, {"input_ids": IDS, "token_type_ids": MASK}])
def test_token_ids_alone_are_their_own_labels(given: object) -> None:
    batch = read_batch(given)
    assert batch.keys() == {"input_ids", "labels"}
    assert torch.equal(batch["labels"], IDS)


def test_what_the_mask_leaves_out_is_not_trained() -> None:
    batch = read_batch(BatchEncoding({"input_ids": IDS, "attention_mask": MASK.bool()}))
    assert batch["labels"].tolist() == [[3, 4, 5], [6, -100, -100]]
    assert {values.dtype for values in batch.values()} == {torch.int64}


def test_labels_that_are_given_stay() -> None:
    labels = torch.full_like(IDS, -100)
    assert read_batch({"input_ids": IDS.int(), "labels": labels})["labels"] is labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ids": IDS, "text": ["a"]}, "without `input_ids`.*ids, text"),
        ("text", "without `input_ids`.*str"),
        ([IDS, IDS], "without `input_ids`.*list"),
        ({"input_ids": [[1, 2]]}, "`input_ids` of a batch is a list, not a tensor"),
        ({"input_ids": IDS.float()}, r"`input_ids` of a batch is torch.float32 \[2, 3\]"),
        ({"input_ids": IDS[0]}, r"`input_ids` of a batch is torch.int64 \[3\]"),
        ({"input_ids": IDS, "labels": IDS[:, 1:]}, r"`labels` of a batch is torch.int64 \[2, 2\]"),
        ({"labels": IDS}, "without `input_ids`"),
    ],
)
def test_what_is_no_batch_is_said_with_what_one_is(given: object, said: str) -> None:
    with pytest.raises(DataError, match=f"{said}.*A batch is a mapping"):
        read_batch(given)
