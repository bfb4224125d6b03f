"""Where rows come from: local files, the Hugging Face hub, and the interpreter's standard library.

Every source yields `(where, fields)` rows, `where` being what an error message should name ("rows.jsonl:12"):

    file_rows   a file, a folder or a glob (see `files`), in the formats of `file_formats`
    hub_rows    one split of a data set on the hub (or a local data-set folder `datasets` understands); nothing that
                needs remote code
    text_rows   documents already in memory (standard library, self-written corpus)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bitnet_train.errors import DataError
from bitnet_train.train.data.examples import Row
from bitnet_train.train.data.file_formats import read_file
from bitnet_train.train.data.files import find_files
from bitnet_train.train.data.table_nulls import without_nulls


def text_rows(documents: Iterable[str], origin: str) -> Iterator[Row]:
    """Yield one row {"text": document} per document."""
    for number, document in enumerate(documents, start=1):
        yield f"{origin} document {number}", {"text": document}


def file_rows(path: str) -> Iterator[Row]:
    """Yield the rows of every file to train on under `path`, files in sorted order.

    Raises DataError when nothing matches, a suffix is unknown, or a file is damaged (naming file and line).
    """
    for file in find_files(path).train:
        yield from read_file(file)


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
        yield f"{path}[{split}] row {number}", without_nulls(row)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no details")
