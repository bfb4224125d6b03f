"""Rows of a JSON-lines file, plain or gzipped, with errors that name the file, the line and the field."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.json_text import parse_json


@dataclass(frozen=True)
class Row:
    """One line: its place, for messages, and its fields."""

    path: Path
    line: int
    fields: dict[str, Any]

    def error(self, name: str, problem: str) -> DataError:
        """Return the error of one field."""
        return DataError(f"{self.path}, line {self.line}, field `{name}`: {problem}")

    def text(self, name: str) -> str:
        """Return a field that must be a text with something in it."""
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, f"a text is needed, got {_short(value)}.")
        return value

    def texts(self, name: str, *, least: int) -> list[str]:
        """Return a field that must be a list of texts, `least` or more."""
        value = self.fields.get(name)
        given = value if isinstance(value, list) else []
        if len(given) < least or not all(isinstance(item, str) and item.strip() for item in given):
            raise self.error(name, f"a list of {least} or more texts is needed, got {_short(value)}.")
        return given


def read_rows(path: Path, key: str) -> list[Row]:
    """Return the rows of a file that the configuration names under `key`.

    Raises ConfigError when there is no such file, DataError when a line is no JSON object or there is no line.
    """
    if not path.is_file():
        raise ConfigError(f"`{key}={path}`: there is no such file.")
    try:
        raw = path.read_bytes()
        lines = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"`{key}={path}` cannot be read as UTF-8 text: {error}.") from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"`{key}={path}` has no rows. Give at least one JSON object a line.")
    return rows


def spread(items: list[Any], most: int | None) -> list[Any]:
    """Return at most `most` of the items, evenly spread from the first to the last; None returns all."""
    if most is None or most >= len(items):
        return items
    return [items[index * len(items) // most] for index in range(most)]


def _row(path: Path, number: int, line: str) -> Row:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not valid JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise DataError(f"{path}, line {number}: a JSON object is needed, got {_short(fields)}.")
    return Row(path, number, fields)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
