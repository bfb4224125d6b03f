from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.sources import file_rows
from tests.fixtures.data_examples import shared_data, write_jsonl

TRUNCATED_GZIP = gzip.compress(b'{"text": "x"}' * 99, mtime=0)[:40]  # without the time: its bytes name a test
ROWS = [{"text": "one"}, {"text": "zwei ü"}]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def write_lines(path: Path) -> None:
    write_jsonl(path, ROWS)


def write_lines_gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress("\n\n".join(json.dumps(row) for row in ROWS).encode()))


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def write_compressed(path: Path) -> None:
    compress = {".bz2": bz2.compress, ".xz": lzma.compress, ".zst": pyarrow.Codec("zstd").compress}[path.suffix]
    path.write_bytes(compress("\n".join(json.dumps(row) for row in ROWS).encode()))


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:  # as Excel does
        writer = csv.DictWriter(stream, ["text"], delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)


def write_arrow(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "rows.json": write_json,
    "rows.jsonl": write_lines,
    "rows.ndjson": write_lines,
    "rows.jsonl.gz": write_lines_gzipped,
    "rows.jsonl.bz2": write_compressed,
    "rows.jsonl.xz": write_compressed,
    "rows.jsonl.zst": write_compressed,
    "rows.csv": write_csv,
    "rows.tsv": write_csv,
    "rows.parquet": write_parquet,
    "rows.arrow": write_arrow,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_format_yields_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert [row for _, row in file_rows(str(tmp_path / name))] == ROWS


@pytest.mark.parametrize("suffix", [".txt", ".md", ".raw", ".py"])
def test_a_text_file_is_one_document(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_text("first\n\nsecond\n")
    assert [row for _, row in file_rows(str(tmp_path))] == [{"text": "first\n\nsecond\n"}]


def test_a_row_says_where_it_stands(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert [where for where, _ in file_rows(str(path))] == [f"{path}:1", f"{path}:2"]


def test_a_bad_jsonl_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n\n{"text": broken}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:3: not valid JSON \(.* column 10\)"):
        list(file_rows(str(path)))


def test_a_jsonl_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('["text"]\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: expected an object with named fields, found a list"):
        list(file_rows(str(tmp_path)))


def test_json_lines_under_the_name_json_are_recognised(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.json", ROWS)
    with pytest.raises(DataError, match=r"rename it to \.jsonl"):
        list(file_rows(str(tmp_path)))


def test_a_json_object_at_the_top_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"text": "x"}')
    with pytest.raises(DataError, match="top level must be a list of objects, found a dict"):
        list(file_rows(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"caf\xe9"),
        ("a.jsonl.gz", b"not gzip"),
        ("a.jsonl.gz", TRUNCATED_GZIP),
        ("a.jsonl.xz", b"not xz"),
        ("a.jsonl.bz2", b"not bz2"),
        ("a.jsonl.zst", b"not zstd"),
        ("a.csv", b'text,id\n"open'),
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        list(file_rows(str(tmp_path)))


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.parquet: not a readable parquet file"):
        list(file_rows(str(tmp_path)))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_quoted_field_of_a_csv_file_may_hold_separators_and_lines(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'question{separator}answer\n"one{separator}\ntwo"{separator}"say ""yes"""\n')
    assert list(file_rows(str(path))) == [(f"{path}:3", {"question": f"one{separator}\ntwo", "answer": 'say "yes"'})]


@pytest.mark.parametrize("record", ["a", "a,b,c"])
def test_a_csv_record_of_another_length_is_named_by_line(record: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"question,answer\nq,a\n{record}\n")
    with pytest.raises(DataError, match=r"a\.csv:3: the record has another number of fields than the header"):
        list(file_rows(str(tmp_path)))


def test_a_csv_field_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\n" + "long " * 40_000 + ",1\n")
    assert [len(row["text"]) for _, row in file_rows(str(tmp_path))] == [200_000]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json", ".csv"])
def test_a_byte_order_mark_is_read_away(suffix: str, encoding: str, tmp_path: Path) -> None:
    row = {"text": "zwei ü"}
    words = {".txt": "zwei ü", ".jsonl": json.dumps(row), ".json": json.dumps([row]), ".csv": "text\nzwei ü\n"}
    content = words[suffix.removesuffix(".gz")].encode(encoding)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    assert [row for _, row in file_rows(str(tmp_path))] == [row]


def test_a_byte_order_mark_between_joined_files_is_read_away(tmp_path: Path) -> None:
    parts = [json.dumps(row).encode("utf-8-sig") for row in ROWS]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*parts, "".encode("utf-8-sig")]))
    assert [row for _, row in file_rows(str(tmp_path))] == ROWS


def test_what_datasets_saves_to_disk_is_read(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert [row for _, row in file_rows(str(tmp_path / "saved"))] == ROWS


def test_real_files_are_read() -> None:
    assert sum(1 for _ in file_rows(str(shared_data("gsm8k/test.jsonl")))) == 1319
    assert sum(1 for _ in file_rows(str(shared_data("alpaca/alpaca_en_demo.json")))) == 999
    assert sum(1 for _ in file_rows(str(shared_data("humaneval/HumanEval.jsonl.gz")))) == 164


@pytest.mark.parametrize("deep", ["[" * 20_000 + "]" * 20_000, '{"a":' * 900 + "1" + "}" * 900, "9" * 5000])
def test_a_row_that_nests_without_end_is_named_by_file_and_line(deep: str, tmp_path: Path) -> None:
    line = '{"text": "x", "more": ' + deep + "}"
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n' + line + "\n")
    (tmp_path / "rows.json").write_text('[{"text": "one"},\n' + line + "]")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not valid JSON"):
        list(file_rows(str(tmp_path / "rows.jsonl")))
    with pytest.raises(DataError, match=r"rows\.json:\d: not valid JSON"):
        list(file_rows(str(tmp_path / "rows.json")))
