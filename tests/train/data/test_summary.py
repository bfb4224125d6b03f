from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bitnet_train.train.data.facts import DataFacts, MixShare
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.packing import Layout
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.summary import data_lines, print_data
from bitnet_train.train.data.tokenise import Counts
from tests.fixtures.data_examples import make_tokenizer, write_jsonl

COUNTS = Counts(
    documents=9, rows=2000, tokens=1000, trained_tokens=500, dropped_tokens=0, dropped_rows=0, padding_share=0.25
)
READ = DataFacts(
    source="stdlib",
    path=None,
    kind="text",
    context_tokens=256,
    content_sha256="0",
    cache_key="0",
    train=COUNTS,
    validation=COUNTS,
    train_rows=9,
    validation_rows=9,
    batch_rows=4,
    seed=0,
)
ROWS = "Rows: 2,000 with 1,000 tokens, 50% of them trained on; 25% of the rows is padding."


def test_files_by_split_and_what_was_left_out_are_said() -> None:
    files = {
        "train": ("a.jsonl",),
        "validation": ("b.jsonl",),
        "test split": ("c.jsonl",),
        "no data format": ("d", "e"),
    }
    found = replace(READ, files=files, unused_fields={"id": 1200}, left_out={"turns that say nothing": 3})
    assert data_lines(found) == [
        "Training on: a.jsonl.",
        "Held out: b.jsonl.",
        "Left out: c.jsonl (test split); d, e (no data format).",
        ROWS,
        "Fields not read: id (1,200 rows).",
        "Of the data, 3 turns that say nothing.",
    ]


def test_many_files_are_counted() -> None:
    names = tuple(f"{number}.txt" for number in range(1500))
    lines = data_lines(replace(READ, files={"train": names}))
    assert lines[:-1] == ["Training on: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt, 7.txt and 1,492 more."]


def laid_out(documents: int, rows: int, padding: float, alone: float, why_not: str | None = None) -> list[str]:
    """Return the lines on such a layout alone."""
    first, *lines = data_lines(replace(READ, layout=Layout(documents, rows, padding, alone, why_not)))
    assert first == ROWS
    return lines


def test_padding_is_said_with_what_was_done_about_it() -> None:
    assert laid_out(1900, 820, 0.03, 0.57) == [
        "Packed: 1,900 documents into 820 rows of 256 tokens, none sees another; 3% is padding."
    ]
    assert laid_out(9, 9, 0.57, 0.57, "BloomForCausalLM would mix the documents of a row") == [
        "Not packed: BloomForCausalLM would mix the documents of a row."
    ]
    assert laid_out(9, 9, 0.02, 0.02, "documents do not fit together") == []


def test_a_source_without_files_says_its_rows_alone() -> None:
    assert data_lines(READ) == [ROWS]


def test_shares_of_a_mix_are_said() -> None:
    found = replace(READ, mix=(MixShare("a.jsonl", 3, 1500, 0.75), MixShare("b.jsonl", 1, 500, 0.25)))
    assert data_lines(found)[1] == "Mix of the rows read: a.jsonl 75% (1,500 rows), b.jsonl 25% (500 rows)."


def test_the_facts_of_real_rows_are_said(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{n} of some words " * 9, "id": n} for n in range(40)])
    config = DataConfig(source="files", path=str(path), context_tokens=48)
    lines = data_lines(BitDataModule(config, make_tokenizer(), 4, 0, tmp_path / "cache").describe())
    assert lines[0] == "Training on: rows.jsonl."
    assert lines[1].startswith("Rows: ")
    assert lines[-1] == "Fields not read: id (40 rows)."


def test_a_name_in_brackets_is_printed_as_it_is() -> None:
    console = Console(record=True, width=20, quiet=False)
    print_data(console, replace(READ, files={"train": ("[bold]a.txt",)}))
    assert console.export_text().startswith("Training on: [bold]a.txt.\n")
