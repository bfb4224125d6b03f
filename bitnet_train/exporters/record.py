"""`export.json`: what a folder in another format is, what it was made from, and a hash for every other file.

    {
     "schema": 1,
     "format": "gguf",
     "options": {"type": "auto", ...},
     "source": {"manifest_sha256": "...", "base_model": "...", "recipe": "..."},
     "created_by": {"bitnet_train": ..., ...},
     "files": {"model.gguf": {"num_bytes": .., "sha256": ..}, ...},
     "facts": {...}                                                  what the exporter says of itself
    }

It is written last. The packed folder has a manifest of its own (`manifest.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.packed.json_fields import Fields, parse_object, read_text
from bitnet_train.packed.manifest import FileEntry
from bitnet_train.packed.names import EXPORT_NAME
from bitnet_train.packed.reader import hash_file

SCHEMA = 1
_LARGEST_BYTES = 16 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_AGAIN = "Copy the folder again, or export it again."


@dataclass(frozen=True)
class ExportRecord:
    """Everything `export.json` says; the fields are described at the top of this module."""

    format: str
    options: dict[str, Any]
    source: dict[str, str]
    created_by: dict[str, str]
    files: dict[str, FileEntry]
    facts: dict[str, Any]

    def to_json(self) -> str:
        """Return the text of `export.json`."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ExportRecord:
        """Parse `export.json`; a FormatError says which field is missing, unknown, wrong or from a newer version."""
        fields = Fields(parse_object(text, EXPORT_NAME), EXPORT_NAME)
        schema = fields.take("schema", int)
        if schema != SCHEMA:
            raise FormatError(
                f"{EXPORT_NAME} has schema {schema}; this version reads {SCHEMA}. "
                "Upgrade: `pip install --upgrade bitnet-train`."
            )
        record = cls(
            format=fields.take("format", str),
            options=fields.take("options", dict),
            source=fields.take_map("source", read_text),
            created_by=fields.take_map("created_by", read_text),
            files=fields.take_map("files", _read_file),
            facts=fields.take("facts", dict),
        )
        fields.done()
        for name in record.files:
            if not _PLAIN_NAME.fullmatch(name) or name == EXPORT_NAME:
                raise FormatError(f"{EXPORT_NAME}: {name!r} is not a plain file name. Do not use this folder.")
        return record


def read_record(folder: str | Path) -> ExportRecord:
    """Read `export.json` of a folder. Raises FormatError when there is none, or it is damaged."""
    path = Path(folder) / EXPORT_NAME
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise FormatError(f"{path} is larger than {_LARGEST_BYTES >> 20} MiB. {_AGAIN}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}. {_AGAIN}") from error
    return ExportRecord.from_json(text)


def verify_export(folder: str | Path) -> ExportRecord:
    """Check every file of an export against its record, and return the record.

    Raises FormatError naming the first file that is missing, truncated or changed.
    """
    record = read_record(folder)
    for name, entry in record.files.items():
        path = Path(folder) / name
        if not path.is_file():
            raise FormatError(f"{folder} has lost {name}. {_AGAIN}")
        num_bytes = path.stat().st_size
        if num_bytes != entry.num_bytes:
            raise FormatError(f"{path} has {num_bytes} bytes instead of {entry.num_bytes}. {_AGAIN}")
        if hash_file(path) != entry.sha256:
            raise FormatError(f"{path} was changed or damaged. {_AGAIN}")
    return record


def files_of(folder: Path) -> dict[str, FileEntry]:
    """Return length and hash of every file in `folder`."""
    return {path.name: FileEntry(path.stat().st_size, hash_file(path)) for path in sorted(folder.iterdir())}


def _read_file(value: Any, where: str) -> FileEntry:
    fields = Fields(value, where)
    entry = FileEntry(fields.take_count("num_bytes"), fields.take("sha256", str))
    fields.done()
    return entry
