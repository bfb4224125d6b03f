from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.sources import hub_rows, text_rows
from tests.fixtures.data_examples import write_jsonl

ROWS = [{"text": "one"}, {"text": "zwei ü"}]


def test_documents_in_memory_become_rows() -> None:
    assert list(text_rows(["a", "b"], "memo")) == [
        ("memo document 1", {"text": "a"}),
        ("memo document 2", {"text": "b"}),
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_that_datasets_understands_is_read_like_a_hub_data_set(
    streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS)
    rows = list(hub_rows(str(tmp_path / "data"), None, "train", streaming=streaming))
    assert [row for _, row in rows] == ROWS
    assert rows[1][0].endswith("[train] row 1")


def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data\.path=.*missing`.*could not be loaded(.|\n)*`data\.source=files`"):
        list(hub_rows(str(tmp_path / "missing"), None, "train"))
