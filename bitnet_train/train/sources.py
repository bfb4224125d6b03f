"""Where rows come from: local files, the Hugging Face hub, and the interpreter's standard library.

Every source yields `(where, fields)` rows, `where` being what an error message should name ("rows.jsonl:12"):

    file_rows   a file, a folder (searched recursively) or a glob; one row per
                    .jsonl / .ndjson   line            .json      element of the top-level list
                    .parquet           table row       .txt .md .text .raw .py .rst    whole file, as {"text": ...}
                all but parquet also gzipped (.gz); in UTF-8, or in UTF-16 with its byte order mark
    hub_rows    one split of a data set on the hub (or a local data-set folder `datasets` understands); nothing that
                needs remote code
    text_rows   documents already in memory (standard library, self-written corpus)
"""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from bitnet_train.errors import DataError
from bitnet_train.train.examples import Row

_BYTE_ORDER_MARK = "\ufeff"  # within a file where files were joined
_BLANK = " \t\r\n" + _BYTE_ORDER_MARK
_PLAIN_TEXT = (".txt", ".md", ".text", ".raw", ".py", ".rst")


def text_rows(documents: Iterable[str], origin: str) -> Iterator[Row]:
    """Yield one row {"text": document} per document."""
    for number, document in enumerate(documents, start=1):
        yield f"{origin} document {number}", {"text": document}


def file_rows(path: str) -> Iterator[Row]:
    """Yield the rows of every readable file under `path`, files in sorted order.

    Raises DataError when nothing matches, a suffix is unknown, or a file is damaged (naming file and line).
    """
    for file in find_files(path):
        try:
            yield from _READERS[_suffix(file)](file)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}: cannot be read ({error}). Text must be UTF-8, or UTF-16 with a byte order mark."
            ) from error


def find_files(path: str) -> list[Path]:
    """Return the data files a path, folder or glob stands for, sorted.

    A folder yields the files with known suffixes; a file named outright, or by a glob, must have one.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.is_file() and _suffix(file) in _READERS)
    elif root.is_file():
        files = [root]
    else:
        anchor = Path(root.anchor) if root.is_absolute() else Path()
        files = sorted(file for file in anchor.glob(str(root.relative_to(anchor))) if file.is_file())
    if not files:
        raise DataError(f"`data.path={path}` holds no data files. Allowed: {', '.join(_READERS)} (also .gz).")
    unknown = [str(file) for file in files if _suffix(file) not in _READERS]
    if unknown:
        raise DataError(f"`data.path`: cannot read {', '.join(unknown)}. Allowed: {', '.join(_READERS)} (also .gz).")
    return files


def hub_rows(path: str, name: str | None, split: str, *, streaming: bool = False) -> Iterator[Row]:
    """Yield the rows of one split of a hub data set; `streaming` reads only what is consumed.

    Raises DataError when the data set or the network is not there.
    """
    import datasets

    try:
        table = datasets.load_dataset(path, name=name, split=split, streaming=streaming)
    except Exception as error:  # `datasets` raises a dozen unrelated types here; all mean "not available"
        given = f"`data.path={path}` `data.name={name}` `data.split={split}`"
        raise DataError(
            f"{given}: the data set could not be loaded ({type(error).__name__}: {_first_line(error)}).\n"
            "Check the name and the network, or download it once and use `data.source=files` with its folder."
        ) from error
    for number, row in enumerate(table):
        yield f"{path}[{split}] row {number}", dict(row)


def _suffix(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no details")


def _open(file: Path) -> TextIO:
    """Open as text, a byte order mark at its beginning read away."""
    open_bytes = gzip.open if file.suffix.lower() == ".gz" else open
    with open_bytes(file, "rb") as stream:
        encoding = "utf-16" if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return cast(TextIO, open_bytes(file, "rt", encoding=encoding))


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
        value = json.loads(line)
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
        rows = json.loads(text)
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


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{file} row {number}", row
                    number += 1
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file}: not a readable parquet file ({_first_line(error)}).") from error


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    **dict.fromkeys(_PLAIN_TEXT, _read_text),
}
