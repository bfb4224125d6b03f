from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from data_examples import shared_data, write_jsonl

from bitnet_train.errors import DataError
from bitnet_train.train.sources import file_rows, find_files, hub_rows, text_rows

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


WRITERS = {
    "rows.json": write_json,
    "rows.jsonl": write_lines,
    "rows.ndjson": write_lines,
    "rows.jsonl.gz": write_lines_gzipped,
    "rows.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_format_yields_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert [row for _, row in file_rows(str(tmp_path / name))] == ROWS


@pytest.mark.parametrize("suffix", [".txt", ".md", ".raw", ".py"])
def test_a_text_file_is_one_document(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_text("first\n\nsecond\n")
    assert [row for _, row in file_rows(str(tmp_path))] == [{"text": "first\n\nsecond\n"}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".json"])
def test_a_byte_order_mark_is_read_away(suffix: str, encoding: str, tmp_path: Path) -> None:
    row = {"text": "zwei ü"}
    words = {".txt": row["text"], ".jsonl": json.dumps(row), ".json": json.dumps([row])}[suffix.removesuffix(".gz")]
    content = words.encode(encoding)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    assert [row for _, row in file_rows(str(tmp_path))] == [row]


def test_a_byte_order_mark_between_joined_files_is_read_away(tmp_path: Path) -> None:
    parts = [json.dumps(row).encode("utf-8-sig") for row in ROWS]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*parts, "".encode("utf-8-sig")]))
    assert [row for _, row in file_rows(str(tmp_path))] == ROWS


def test_a_row_says_where_it_stands(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    assert [where for where, _ in file_rows(str(path))] == [f"{path}:1", f"{path}:2"]


def test_a_folder_is_searched_in_sorted_order_and_a_glob_narrows_it(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "a/3.jsonl", "a/ignored.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = [file.relative_to(tmp_path).as_posix() for file in find_files(str(tmp_path))]
    assert found == ["a/1.txt", "a/3.jsonl", "b/2.txt"]
    globbed = [file.relative_to(tmp_path).as_posix() for file in find_files(str(tmp_path / "*" / "*.txt"))]
    assert globbed == ["a/1.txt", "b/2.txt"]


def test_a_path_that_matches_nothing_names_the_key_and_the_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data.path=.*none.*` holds no data files\. Allowed: \.jsonl, .*\.parquet"):
        find_files(str(tmp_path / "none*.txt"))


def test_a_file_of_unknown_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "sheet.xlsx").write_text("")
    with pytest.raises(DataError, match=r"cannot read .*sheet\.xlsx"):
        find_files(str(tmp_path / "sheet.xlsx"))


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
    [("a.txt", b"caf\xe9"), ("a.jsonl.gz", b"not gzip"), ("a.jsonl.gz", TRUNCATED_GZIP)],
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


def test_real_files_are_read() -> None:
    assert sum(1 for _ in file_rows(str(shared_data("gsm8k/test.jsonl")))) == 1319
    assert sum(1 for _ in file_rows(str(shared_data("alpaca/alpaca_en_demo.json")))) == 999
    assert sum(1 for _ in file_rows(str(shared_data("humaneval/HumanEval.jsonl.gz")))) == 164
