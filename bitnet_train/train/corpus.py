"""Read the examples of both splits.

Held out are, in this order of preference: the rows of an explicit validation path or split; the standard library's
own fixed split; else every example whose content hash, read as a fraction of 2^64, lies below `validation_fraction`.
The hash makes the split independent of order and machine, and puts duplicates on the same side.

Few examples can fall on one side entirely. Then a text corpus gives the last `validation_fraction` of every document,
cut at a line break where one is near, and a chat corpus the examples of smallest hash, at least one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.progress import track
from bitnet_train.train.data_config import DataConfig
from bitnet_train.train.examples import Document, Example, Kind, Row, RowReader, content_digest
from bitnet_train.train.self_corpus import self_documents
from bitnet_train.train.sources import file_rows, hub_rows, text_rows
from bitnet_train.train.stdlib_corpus import stdlib_documents


@dataclass(frozen=True)
class Corpus:
    """Examples of both splits, all of one kind; `content_sha256` covers both, in order."""

    train: list[Example]
    validation: list[Example]
    kind: Kind
    unused_fields: tuple[str, ...]
    content_sha256: str


def read_corpus(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    teacher: PreTrainedModel | None = None,
) -> Corpus:
    """Read, interpret and split. `tokenizer`, `cache_dir` and `teacher` serve `source=self` only.

    Raises DataError when there is nothing to train on, or a split asked for is empty.
    """
    reader = _reader(None if config.kind == "auto" else config.kind, config)
    train_rows, validation_rows = _rows(config, tokenizer, cache_dir, teacher)
    train = list(_examples(reader, train_rows, config))
    if not train:
        raise DataError(
            f"`data.source={config.source}` `data.path={config.path}`: no row with content. Nothing to train on."
        )
    if validation_rows is not None:
        validation = list(_examples(reader, validation_rows, config))
    else:
        train, validation = split_examples(train, config.validation_fraction)
    if not validation and (validation_rows is not None or config.validation_fraction > 0):
        raise DataError(
            "The validation split is empty. Give it rows, or set `data.validation_fraction=0` to go without."
        )
    assert reader.kind is not None
    return Corpus(
        train, validation, reader.kind, tuple(sorted(reader.unused_fields)), _content_sha256(train, validation)
    )


def split_examples(examples: list[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Return (train, validation), order kept; see the module's text for the rule."""
    if fraction == 0:
        return examples, []
    held_out = [_position(example) < fraction for example in examples]
    if not any(held_out) or all(held_out):
        texts = [example for example in examples if isinstance(example, Document)]
        if len(texts) == len(examples):
            return _split_tails(texts, fraction)
        held_out = _smallest(examples, fraction)
    train = [example for example, out in zip(examples, held_out, strict=True) if not out]
    validation = [example for example, out in zip(examples, held_out, strict=True) if out]
    if not train:
        raise DataError(
            f"{len(examples)} example(s) cannot be split into training and validation. Add rows, give validation rows"
            " of their own (`data.validation_path`), or set `data.validation_fraction=0`."
        )
    return train, validation


def _rows(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    teacher: PreTrainedModel | None,
) -> tuple[Iterable[Row], Iterable[Row] | None]:
    """Return the rows to train on, and rows to validate on where the source has its own."""
    if config.source == "stdlib":
        origin = "standard library"
        return text_rows(stdlib_documents("train"), origin), text_rows(stdlib_documents("validation"), origin)
    if config.source == "files":
        assert config.path
        return file_rows(config.path), file_rows(config.validation_path) if config.validation_path else None
    if config.source == "hub":
        return _hub(config, config.split), _hub(config, config.validation_split) if config.validation_split else None
    if teacher is None:
        raise ConfigError("`data.source=self` needs the full-precision teacher; it is only available in training.")
    documents = self_documents(teacher, tokenizer, config.self_corpus, cache_dir, _prompts(config))
    return text_rows(documents, "self-written"), None


def _hub(config: DataConfig, split: str) -> Iterator[Row]:
    assert config.path
    return hub_rows(config.path, config.name, split, streaming=config.max_documents is not None)


def _prompts(config: DataConfig) -> list[str]:
    if not config.path:
        return []
    rows = islice(file_rows(config.path), config.max_documents or config.self_corpus.documents)
    examples = _reader("text", config).examples(rows)
    return [example.text for example in examples if isinstance(example, Document)]


def _reader(kind: Kind | None, config: DataConfig) -> RowReader:
    return RowReader(kind, config.field_names, replace_surrogates=config.lone_surrogates == "replace")


def _examples(reader: RowReader, rows: Iterable[Row], config: DataConfig) -> Iterator[Example]:
    limited = rows if config.max_documents is None else islice(rows, config.max_documents)
    return reader.examples(track(limited, "reading"))


def _position(example: Example) -> float:
    """Return where the content hash falls in [0, 1)."""
    return int.from_bytes(content_digest(example)[:8]) / 2**64


def _smallest(examples: list[Example], fraction: float) -> list[bool]:
    """Mark the examples of smallest hash, at least one; duplicates of a marked one are marked too."""
    positions = [_position(example) for example in examples]
    limit = sorted(positions)[max(1, round(fraction * len(positions))) - 1]
    return [position <= limit for position in positions]


def _split_tails(documents: list[Document], fraction: float) -> tuple[list[Example], list[Example]]:
    """Cut every document in two, at a line break within 200 characters before the cut if there is one."""
    train: list[Example] = []
    validation: list[Example] = []
    for document in documents:
        cut = max(1, round(len(document.text) * (1 - fraction)))
        line_break = document.text.rfind("\n", max(0, cut - 200), cut)
        cut = line_break + 1 if line_break > 0 else cut
        for part, side in ((document.text[:cut], train), (document.text[cut:], validation)):
            if part.strip():
                side.append(Document(part))
    return train, validation


def _content_sha256(train: list[Example], validation: list[Example]) -> str:
    sha = hashlib.sha256(f"{len(train)} {len(validation)}\n".encode())
    for example in (*train, *validation):
        sha.update(content_digest(example))
    return sha.hexdigest()
