from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.summary import data_lines, print_data
from tests.fixtures.data_examples import make_tokenizer, write_jsonl


def test_files_by_split_and_what_was_left_out_are_said() -> None:
    files = {"train": ["a.jsonl"], "validation": ["b.jsonl"], "test split": ["c.jsonl"], "no data format": ["d", "e"]}
    assert data_lines({"files": files, "unused_fields": {"id": 1200}, "left_out": {"turns that say nothing": 3}}) == [
        "Training on: a.jsonl.",
        "Held out: b.jsonl.",
        "Left out: c.jsonl (test split); d, e (no data format).",
        "Fields not read: id (1,200 rows).",
        "Of the data, 3 turns that say nothing.",
    ]


def test_many_files_are_counted() -> None:
    lines = data_lines({"files": {"train": [f"{number}.txt" for number in range(1500)]}})
    assert lines == ["Training on: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt, 7.txt and 1,492 more."]


def layout(documents: int, rows: int, padding: float, alone: float, why_not: str | None = None) -> dict[str, object]:
    figures = {"documents": documents, "rows": rows, "padding_share": padding, "padding_share_alone": alone}
    return {"layout": {**figures, "why_not": why_not}, "context_tokens": 256}


def test_padding_is_said_with_what_was_done_about_it() -> None:
    assert data_lines(layout(1900, 820, 0.03, 0.57)) == [
        "Packed: 1,900 documents into 820 rows of 256 tokens, none sees another; 3% is padding."
    ]
    assert data_lines(layout(9, 9, 0.57, 0.57, "BloomForCausalLM would mix the documents of a row")) == [
        "Not packed: BloomForCausalLM would mix the documents of a row."
    ]
    assert data_lines(layout(9, 9, 0.02, 0.02, "documents do not fit together")) == []


def test_a_source_without_files_says_nothing() -> None:
    assert data_lines({"source": "stdlib", "unused_fields": {}}) == []


def test_the_facts_of_real_rows_are_said(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{n} of some words " * 9, "id": n} for n in range(40)])
    config = DataConfig(source="files", path=str(path), context_tokens=48)
    lines = data_lines(BitDataModule(config, make_tokenizer(), 4, 0, tmp_path / "cache").describe())
    assert lines[0] == "Training on: rows.jsonl."
    assert lines[1].startswith("Rows: ")
    assert lines[-1] == "Fields not read: id (40 rows)."


def test_a_name_in_brackets_is_printed_as_it_is() -> None:
    console = Console(record=True, width=20, quiet=False)
    print_data(console, {"files": {"train": ["[bold]a.txt"]}})
    assert console.export_text() == "Training on: [bold]a.txt.\n"
