"""Every format that a packed folder can be written in, one row each, and the one way to write any of them.

    export_as("gguf", packed_folder, out, ExportOptions(type="q1_0"))

A row says what it refuses (before a byte is written), how it writes, and how its files are read back. The tests'
round-trip matrix and `validate` run over this registry, so a new format is covered when it is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from bitnet_train.disk import needing
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters import c_array, gguf, hf_bitnet, plain
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.record import ExportRecord, files_of, read_record
from bitnet_train.packed.export_folder import export_folder
from bitnet_train.packed.names import EXPORT_NAME, WEIGHTS_NAME
from bitnet_train.packed.source import PackedSource, open_packed
from bitnet_train.packed.writer import versions


@dataclass(frozen=True)
class Exporter:
    """How one format is written and read back.

    `check(source, options)` raises for what the format cannot hold, naming layer and fix; it reads no large tensor.
    `write(source, folder, options)` fills an empty folder and returns facts for the record.
    `read_back(path)` decodes the finished folder (or, where the format is one file, that file) and yields every weight
    as float32 values, by our name for it or by that and `.weight`. Each has to be `expected(source, name, options)` bit
    for bit, which is `source.dense(name)` unless the options ask for rounding.
    """

    name: str
    summary: str
    check: Callable[[PackedSource, ExportOptions], None]
    write: Callable[[PackedSource, Path, ExportOptions], dict[str, Any]]
    read_back: Callable[[Path], Iterator[tuple[str, Tensor]]]
    expected: Callable[[PackedSource, str, ExportOptions], Tensor]


def _exactly(source: PackedSource, name: str, options: ExportOptions) -> Tensor:
    return source.dense(name)


_ROWS = (
    Exporter("gguf", "one file for llama.cpp", gguf.check, gguf.write, gguf.read_back, gguf.expected),
    Exporter(
        "hf_bitnet",
        "a folder for transformers alone",
        hf_bitnet.check,
        hf_bitnet.write,
        hf_bitnet.read_back,
        hf_bitnet.expected,
    ),
    Exporter("plain", "dense weights for any tool", plain.check, plain.write, plain.read_back, plain.expected),
    Exporter("c_array", "a binary and a header", c_array.check, c_array.write, c_array.read_back, _exactly),
)

EXPORTERS: Mapping[str, Exporter] = MappingProxyType({row.name: row for row in _ROWS})
"""Every format but `packed`, which all of them are written from."""


def exporter_of(name: str) -> Exporter:
    """Return the row of a format; ConfigError for a name that is not in the registry."""
    if name not in EXPORTERS:
        raise ConfigError(f"`export.format={name}` is not known. Allowed: packed, {', '.join(EXPORTERS)}.")
    return EXPORTERS[name]


def export_as(
    name: str, packed_folder: str | Path, out: str | Path, options: ExportOptions | None = None, *, force: bool = False
) -> ExportRecord:
    """Write the packed folder in another format into the folder `out`, whole or not at all.

    Parameters
    ----------
    name
        A row of `EXPORTERS`.
    packed_folder
        A folder that `export_packed` wrote; it is verified first.
    out
        A folder that does not exist or is empty.
    options
        What the format lets choose.
    force
        Replace an earlier export at `out`, and only that.

    Raises
    ------
    ConfigError, FormatError
        When the format cannot hold this model, the packed folder is damaged, or the target is taken. Nothing has been
        changed then.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> original = bt.load_pretrained("tiny")
    >>> _ = bt.convert(original.model, "binary_row")
    >>> _ = bt.export(original.model, original.tokenizer, "packed_for_others")
    >>> record = bt.export_as("plain", "packed_for_others", "plain", bt.ExportOptions(dtype="float32"))
    >>> record.facts["exact"]
    True
    """
    exporter, options = exporter_of(name), options or ExportOptions()
    with open_packed(packed_folder) as source:
        exporter.check(source, options)
        with export_folder(Path(out).absolute(), force=force, owned=_files_of_an_export) as folder:
            manifest = source.manifest
            with needing(manifest.files[WEIGHTS_NAME].num_bytes):  # at least, where an exporter does not know better
                facts = exporter.write(source, folder, options)
            record = ExportRecord(
                format=name,
                options=asdict(options),
                source={
                    "manifest_sha256": manifest.sha256,
                    "base_model": manifest.base_model,
                    "recipe": manifest.recipe,
                },
                created_by=versions(),
                files=files_of(folder),
                facts=facts,
            )
            (folder / EXPORT_NAME).write_text(record.to_json(), encoding="utf-8")
    return record


def _files_of_an_export(folder: Path) -> set[str]:
    try:
        return {EXPORT_NAME, *read_record(folder).files}
    except FormatError:
        return set()
