"""What a data file holds: `(where, fields)` rows, `where` being what an error message should name ("rows.jsonl:12").

    .jsonl .ndjson                    a row per line
    .json                             a row per element of the top-level list
    .csv .tsv                         a row per record; the header shows what separates: comma, semicolon, tab or bar
    .parquet .arrow                   a row per row of the table
    .txt .text .raw .md .rst .py      the whole file, as {"text": ...}

All but the tables also compressed: .gz .bz2 .xz .zst. Text is UTF-8, or UTF-16 with its byte order
mark; a mark is read away.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from bitnet_train.errors import DataError
from bitnet_train.json_text import parse_json
from bitnet_train.train.data.examples import Row
from bitnet_train.train.data.table_nulls import without_nulls

DOCUMENTATION = (".md", ".rst", ".py")  # text that more often stands beside data than is data
TEXTS = (".txt", ".text", ".raw", *DOCUMENTATION)
_BYTE_ORDER_MARK = "\ufeff"  # within a file where files were joined
_BLANK = " \t\r\n" + _BYTE_ORDER_MARK
_LARGEST_FIELD = 1 << 30  # characters of one CSV field; the csv module's own limit is 128 KiB


def suffix(file: Path) -> str:
    """Return the suffix that tells the format, that of a compression taken off."""
    name = file.name.lower()
    for packed in _OPENERS:
        name = name.removesuffix(packed)
    return Path(name).suffix


def is_readable(file: Path) -> bool:
    """Tell whether the name is that of a data file."""
    return suffix(file) in _READERS


def is_text(file: Path) -> bool:
    """Tell whether the file is one document, not rows."""
    return suffix(file) in TEXTS


def read_file(file: Path) -> Iterator[Row]:
    """Yield the rows of one file. Raises DataError naming file and line when it is damaged."""
    try:
        yield from _READERS[suffix(file)](file)
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, csv.Error) as error:
        raise DataError(
            f"{file}: cannot be read ({error}). Text must be UTF-8, or UTF-16 with a byte order mark."
        ) from error


def known_suffixes() -> str:
    """Return the suffixes that are read, as a sentence's part."""
    return f"{', '.join(_READERS)} (also {', '.join(_OPENERS)})"


def _open(file: Path, newline: str | None = None) -> TextIO:
    """Open as text, a byte order mark at its beginning read away."""
    opener = _OPENERS.get(file.suffix.lower(), partial(open, mode="rb"))
    with opener(file) as stream:
        encoding = "utf-16" if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return io.TextIOWrapper(opener(file), encoding=encoding, newline=newline)


def _open_zstd(file: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))


def _read_text(file: Path) -> Iterator[Row]:
    with _open(file) as stream:
        yield str(file), {"text": stream.read()}


def _read_jsonl(file: Path) -> Iterator[Row]:
    with _open(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip(_BLANK):
                yield _json_row(f"{file}:{number}", line.removeprefix(_BYTE_ORDER_MARK))


def _json_row(where: str, line: str) -> Row:
    try:
        value = parse_json(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at column {error.colno}). Fix or drop the line."
        ) from error
    return where, _fields(where, value)


def _fields(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with named fields, found a {type(value).__name__}.")
    return value


def _read_json(file: Path) -> Iterator[Row]:
    with _open(file) as stream:
        text = stream.read()
    try:
        rows = parse_json(text)
    except json.JSONDecodeError as error:
        hint = " It looks like JSON lines: rename it to .jsonl." if error.msg == "Extra data" else ""
        raise DataError(
            f"{file}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno}).{hint}"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{file}: the top level must be a list of objects, found a {type(rows).__name__}.")
    for number, value in enumerate(rows):
        where = f"{file} row {number}"
        yield where, _fields(where, value)


def _read_csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(_LARGEST_FIELD)
    with _open(file, newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        reader = csv.DictReader(stream, delimiter=max(",;\t|", key=header.count), strict=True)
        for row in reader:
            yield _csv_row(f"{file}:{reader.line_num}", row)


def _csv_row(where: str, row: dict[Any, Any]) -> Row:
    """Refuse a record of another length than the header, which DictReader marks by None as name or value."""
    if None in row or None in row.values():
        raise DataError(f"{where}: the record has another number of fields than the header. Quote text with commas.")
    return where, row


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            yield from _table_rows(file, table.iter_batches(batch_size=1024))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file}: not a readable parquet file ({_first_line(error)}).") from error


def _read_arrow(file: Path) -> Iterator[Row]:
    """Read what `datasets.save_to_disk` writes, a stream of record batches."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            yield from _table_rows(file, batches)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file}: not a readable arrow file ({_first_line(error)}).") from error


def _table_rows(file: Path, batches: Any) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{file} row {number}", without_nulls(row)
            number += 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no details")


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    **dict.fromkeys(TEXTS, _read_text),
}
