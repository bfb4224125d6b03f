from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from bitnet_train.train.data.sources import file_rows, hub_rows

CALLS = [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"y": [None, 2]}}]
ROWS = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": CALLS}], "note": None}]


def test_what_a_table_fills_up_with_nulls_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data" / "a.parquet")
    assert [row for _, row in file_rows(str(tmp_path / "data"))] == ROWS
    assert [row for _, row in hub_rows(str(tmp_path / "data"), None, "train")] == ROWS
