from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.corpus import read_corpus
from bitnet_train.train.data.examples import Document
from bitnet_train.train.data.lone_surrogates import replace_lone_surrogates
from bitnet_train.train.data.module import load_or_tokenise
from bitnet_train.train.data.settings import DataConfig
from tests.fixtures.data_examples import make_tokenizer, write_jsonl

CUT = "cut inside an emoji: \ud83d"
ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": CUT},
    "instruction": {"question": "q", "answer": CUT},
    "input": {"instruction": "q", "input": CUT, "output": "a"},
    "chat": {"messages": [{"role": "user", "content": CUT}, {"role": "assistant", "content": "a"}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": CUT}]},
            {"role": "assistant", "content": "a"},
        ]
    },
}


def config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(source="files", path=str(path), validation_fraction=0.0, min_tokens=2, **keys)


@pytest.mark.parametrize("shape", ROWS)
def test_half_a_surrogate_pair_is_refused_with_file_and_line(shape: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS[shape]])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: field `\w+` .* \\ud83d, after .*emoji(.|\n)*`data\.lone_surr"):
        load_or_tokenise(config(path), make_tokenizer(), tmp_path, None)


@pytest.mark.parametrize("shape", ROWS)
def test_half_a_surrogate_pair_is_replaced_where_that_is_asked_for(shape: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS[shape]])
    rows, _ = load_or_tokenise(config(path, lone_surrogates="replace"), make_tokenizer(), tmp_path, None)
    assert "emoji: \ufffd" in str(make_tokenizer().decode(rows["train"].input_ids[0]))


def test_a_field_that_is_not_read_may_hold_anything(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "fine", "note": CUT}])
    assert read_corpus(config(path), make_tokenizer(), tmp_path).train == [Document("fine")]


def test_whole_pairs_stay_as_they_are() -> None:
    assert replace_lone_surrogates({"a": ["🙂", "\ud83d|\ude42", 1, None]}) == {"a": ["🙂", "\ufffd|\ufffd", 1, None]}
