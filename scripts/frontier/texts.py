"""The texts that both sides are measured on, as the windows of token ids that `evaluate` cuts."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.evaluate.batches import count_labels
from bitnet_train.evaluate.windows import windows

BETWEEN_DOCUMENTS = "\n\n"


@dataclass(frozen=True)
class Text:
    """One text as rows {input_ids, labels, attention_mask} int64 [R, L]."""

    name: str
    rows: dict[str, Tensor]

    def facts(self) -> dict[str, Any]:
        """Return what makes two texts the same: how many windows and predicted tokens, and the hash of all ids."""
        count, length = self.rows["input_ids"].shape
        return {
            "windows": count,
            "window_tokens": length,
            "tokens": count_labels(self.rows),
            "sha256": ids_sha256(self.rows),
        }


def ids_sha256(rows: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the ids of `rows` and of which of them are predicted."""
    digest = hashlib.sha256()
    for name in ("input_ids", "labels"):
        digest.update(rows[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_text(path: Path, option: str) -> str:
    """Return the text of a UTF-8 file; of `*.jsonl` the `text` of every line, joined; `.gz` is unpacked.

    Lines end in a line feed alone, as `evaluate` reads them: WikiText-2 comes with a carriage return, other tokens.
    Raises ConfigError where there is no such file, DataError where it does not hold that, both naming `option`.
    """
    if not path.is_file():
        raise ConfigError(f"`{option}`: there is no file {path}. Give the path of a text, or of documents as *.jsonl.")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"`{option}`: {path} cannot be read as UTF-8 text: {error}. Give another file.") from error
    is_rows = path.name.removesuffix(".gz").endswith(".jsonl")
    return BETWEEN_DOCUMENTS.join(_documents(text, path, option)) if is_rows else text


def _documents(text: str, path: Path, option: str) -> Iterator[str]:
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"`{option}`: {path}, line {number} is no JSON: {error}. Repair it.") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError(f'`{option}`: {path}, line {number} has no text. Every line is {{"text": "..."}}.')
        yield row["text"]


def cut(name: str, text: str, tokenizer: PreTrainedTokenizerBase, *, window_tokens: int, num_windows: int) -> Text:
    """Cut the first windows of a text as `bitnet-train evaluate` does; DataError where it does not fill them all."""
    rows = windows(text, tokenizer, window_tokens, max_windows=num_windows)
    if rows["input_ids"].shape[0] < num_windows or not bool(rows["attention_mask"].all()):
        raise DataError(
            f"`--text {name}=...` does not fill {num_windows} windows of {window_tokens} tokens. Give a longer text, "
            "or lower `--windows` or `--window`."
        )
    return Text(name, rows)
